// The README's example is the program in example/, and it prints what it says.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { needsCompiler } from "./helpers.ts";

const read = (file: string): string => readFileSync(new URL(file, import.meta.url), "utf8");

describe("README", () => {
  it("shows the example as it is", () => {
    const readme = read("../README.md");
    expect(readme).toContain(`\`\`\`c\n${read("example/axpy.c")}\`\`\``);
    expect(readme).toContain(`\`\`\`ts\n${read("example/axpy.ts")}\`\`\``);
  });

  it("documents every variable that is read", () => {
    const names = read("../src/options.ts").match(/OPEN_INFRA_\w+/g) ?? [];
    expect(names.length).toBeGreaterThan(5);
    for (const name of names) expect(read("../README.md")).toContain(`| \`${name}\` `);
  });

  it.skipIf(requirement("README example", needsCompiler))("runs the example", () => {
    const program = fileURLToPath(new URL("example/axpy.ts", import.meta.url));
    const args = ["--conditions=@open-infra/source", program];
    expect(execFileSync(process.execPath, args, { encoding: "utf8" })).toBe("[ 12, 24, 36 ]\n");
  });
});
