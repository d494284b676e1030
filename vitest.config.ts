// Two projects: `unit` shares one module graph (fast), `native` gives each file its own process,
// because a crash in a kernel must not take the other tests with it.

import { defineConfig } from "vitest/config";

const conditions = ["@open-infra/source"];
const common = {
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
};
const execArgv = ["--conditions=@open-infra/source"];

export default defineConfig({
  test: {
    projects: [
      {
        ...common,
        test: {
          name: "unit",
          include: ["packages/*/test/**/*.unit.test.ts", "scripts/test/**/*.unit.test.ts"],
          isolate: false,
          sequence: { groupOrder: 0 },
          execArgv,
        },
      },
      {
        ...common,
        test: {
          name: "native",
          include: ["packages/*/test/**/*.test.ts", "scripts/test/**/*.test.ts"],
          exclude: ["**/*.unit.test.ts", "**/node_modules/**"],
          pool: "forks",
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
          testTimeout: 60_000,
          hookTimeout: 120_000,
          execArgv,
        },
      },
    ],
  },
});
