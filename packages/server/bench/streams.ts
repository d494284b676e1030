// What the HTTP layer costs a streamed token: an engine that has nothing to compute, real sockets,
// clients in another process so that only the server's own time is counted. Run it with
// `node --conditions=@open-infra/source packages/server/bench/streams.ts`; it is not one of the
// rows of `npm run bench`, since no limit of the machine bounds it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { demoModelDir } from "@open-infra/demo-model";
import { loadTokenizer } from "@open-infra/model";
import { startServer } from "../src/index.ts";
import { finish, ScriptedEngine } from "../test/helpers/scripted-engine.ts";

const TOKENS = 512;

/** Reads streams to their end, `clients` at once; the address comes as an argument. */
const reader = `
const [url, clients, rounds] = process.argv.slice(1);
const body = JSON.stringify({ model: "demo", prompt: "x", stream: true, max_tokens: ${TOKENS} });
const headers = { "content-type": "application/json" };
await Promise.all(Array.from({ length: Number(clients) }, async () => {
  for (let i = 0; i < Number(rounds); i++) {
    const response = await fetch(url + "/v1/completions", { method: "POST", headers, body });
    for await (const _ of response.body);
  }
}));
`;

const engine = new ScriptedEngine(async function* (request) {
  for (let i = 0; i < TOKENS; i++) yield { type: "delta", text: " token", tokenIds: [i] };
  yield finish(request, TOKENS, "length");
});
await using server = await startServer({
  engine,
  tokenizer: loadTokenizer(demoModelDir),
  port: 0,
  options: { logLevel: "silent" },
});
await server.ready;

for (const [clients, rounds] of [
  [1, 4],
  [1, 64],
  [64, 2],
] as const) {
  const cpu = process.cpuUsage();
  const args = ["--input-type=module", "-e", reader, server.url, String(clients), String(rounds)];
  await once(spawn(process.execPath, args, { stdio: "inherit" }), "exit");
  const { user, system } = process.cpuUsage(cpu);
  const each = (user + system) / (clients * rounds * TOKENS);
  console.log(`${clients} clients: ${each.toFixed(1)} µs of the server's CPU a streamed token`);
}
