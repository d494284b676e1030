// Processes of one host that cannot see each other, as in two containers: what they share is found
// out, not guessed from the host's name.

import { spawn, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { findCompiler } from "@open-infra/jit";
import { TcpStoreServer } from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

const unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const namespaces =
  spawnSync(unshare[0] as string, [...unshare.slice(1), "true"]).status === 0 ||
  "no process tables of one's own (unshare --pid; run as root)";

/** Runs two ranks, each behind a command of its own. */
async function meet(commands: readonly (readonly string[])[]): Promise<string[]> {
  const secret = "a secret of this test";
  using server = await TcpStoreServer.listen({ secret });
  const program = fileURLToPath(new URL("./ranks/meet.ts", import.meta.url));
  const runs = commands.map((command, rank) => {
    const node = [process.execPath, "--conditions=@open-infra/source", program];
    const [first, ...rest] = [...command, ...node, `${rank}`, `${server.port}`, secret];
    const child = spawn(first as string, rest, { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (chunk) => {
      text += chunk;
    });
    return new Promise<string>((resolve) => child.on("close", () => resolve(text.trim())));
  });
  return await Promise.all(runs);
}

describe("two processes of one host", () => {
  const skip = requirement("processes that meet", compiler);
  it.skipIf(skip)("share memory if they see each other", { timeout: 60_000 }, async () => {
    const said = await meet([[], []]);
    expect(said).toEqual(["0 reaches the other over shm", "1 reaches the other over shm"]);
  });

  const met = compiler === true ? namespaces : compiler;
  const skipApart = requirement("processes that do not see each other", met);
  it.skipIf(skipApart)("use a link if they do not", { timeout: 60_000 }, async () => {
    const said = await meet([[], unshare]);
    for (const line of said) expect(line).toMatch(/over (tcp|ucx)$/);
  });
});
