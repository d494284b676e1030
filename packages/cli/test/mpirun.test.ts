// Ranks that mpirun starts: they join by Open MPI's variables, without linking MPI.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { findCompiler } from "@open-infra/jit";
import { hasProgram, requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

const script = fileURLToPath(new URL("./launch/rank.ts", import.meta.url));
const met =
  findCompiler() === undefined
    ? "no C compiler (apt-get install gcc libc6-dev)"
    : hasProgram("mpirun") || "no mpirun (apt-get install openmpi-bin)";

describe.skipIf(requirement("ranks under mpirun", met))("ranks under mpirun", () => {
  it.each(["auto", "tcp"])("join and stream, transport %s", (transport) => {
    const flag = "--conditions=@open-infra/source";
    const node = [process.execPath, flag, script, "stream", "2"];
    const { status, stdout, stderr } = spawnSync(
      "mpirun",
      ["--allow-run-as-root", "--oversubscribe", "-n", "3", ...node],
      {
        encoding: "utf8",
        timeout: 55_000,
        killSignal: "SIGTERM",
        env: { ...process.env, OPEN_INFRA_TRANSPORT: transport },
      },
    );
    expect(status, `${stdout}\n${stderr}`).toBe(0);
    const link = transport === "auto" ? "shm" : transport;
    expect(stdout).toMatch(new RegExp(`joined 2 \\d+ .* by ${link},${link},heap`));
    for (const rank of [0, 1, 2]) expect(stdout).toContain(`rank ${rank} has got 2 rows of each`);
  });
});
