// A rank that joins by a store over TCP, given on the command line; it says how it reaches the
// other.

import { joinGroup, TcpStore } from "@open-infra/ranks";

const [rank, port, secret] = process.argv.slice(2) as [string, string, string];
const store = await TcpStore.connect({ host: "127.0.0.1", port: Number(port), secret });
const options = { rank: Number(rank), size: 2, store, timeoutMs: 20_000 };
await using group = await joinGroup(options);
group.barrier();
process.stdout.write(`${group.rank} reaches the other over ${group.linkOf(1 - group.rank)}\n`);
