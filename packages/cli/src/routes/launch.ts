// `open-infra launch`: its flags and help. The command loads when it runs.

import { buildCommand, type Command } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { integer, positiveNumber, text } from "../parse.ts";

/** `open-infra launch`. */
export const launch: Command<CliContext> = buildCommand({
  loader: async () => import("../commands/launch.ts"),
  parameters: {
    flags: {
      nnodes: {
        kind: "parsed",
        parse: integer(1, 65_536),
        brief: "Nodes; the command runs once on each",
        placeholder: "N",
        default: "1",
      },
      nodeRank: {
        kind: "parsed",
        parse: integer(0, 65_535),
        brief: "Which of them this is, from 0",
        placeholder: "I",
        default: "0",
      },
      nprocPerNode: {
        kind: "parsed",
        parse: integer(1, 4096),
        brief: "Ranks to start here",
        placeholder: "N",
        default: "1",
      },
      masterAddr: {
        kind: "parsed",
        parse: text,
        brief: "Address of node 0, as the other nodes reach it (default: MASTER_ADDR)",
        placeholder: "HOST",
        optional: true,
      },
      masterPort: {
        kind: "parsed",
        parse: integer(1, 65_535),
        brief: "Its port (default: MASTER_PORT; a free one for one node, else 29500)",
        placeholder: "PORT",
        optional: true,
      },
      transport: {
        kind: "enum",
        values: ["auto", "shm", "ucx", "tcp"],
        brief: "How ranks reach each other (default: memory on a host, UCX or TCP between hosts)",
        optional: true,
      },
      timeout: {
        kind: "parsed",
        parse: positiveNumber,
        brief: "Seconds that ranks and launchers wait for each other",
        placeholder: "S",
        default: "100",
      },
      grace: {
        kind: "parsed",
        parse: positiveNumber,
        brief: "Seconds from SIGTERM to SIGKILL when ranks are ended",
        placeholder: "S",
        default: "5",
      },
      prefix: {
        kind: "boolean",
        brief: "Put the rank before each line: [3] …",
        default: false,
        withNegated: false,
      },
      json: {
        kind: "boolean",
        brief: "Print how it went as JSON; what ranks print goes to stderr",
        default: false,
        withNegated: false,
      },
    },
    positional: {
      kind: "array",
      parameter: {
        brief: "A script or a program, and its arguments",
        parse: text,
        placeholder: "--",
      },
      minimum: 1,
    },
  },
  docs: {
    brief: "Start a script on several ranks, here or on several hosts, as torchrun does",
    customUsage: [
      "--nproc-per-node 4 -- script.ts ARGS",
      "--nnodes 2 --node-rank 0 --nproc-per-node 4 --master-addr 10.0.0.1 -- script.ts ARGS",
    ],
    fullDescription:
      "Sets RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT; a\n" +
      "script joins by joinFromEnvironment() of @open-infra/ranks. The first rank that fails\n" +
      "ends all, on every node, and its exit status is the command's (128 + the signal that\n" +
      "killed it). Several nodes need the same OPEN_INFRA_SECRET in the environment.",
  },
});
