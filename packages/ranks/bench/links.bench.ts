// Links between ranks whose memory is not mapped: a signal's way, and streams of puts with a signal
// each, over TCP and UCX beside bare sockets and beside shared memory, all on this machine.

import { hasUcx, runThreads } from "@open-infra/ranks";
import { type BenchRow, median } from "@open-infra/testing";
import { runBareSocket } from "./bare-socket.ts";
import type { LinkTimes, LinkWork } from "./link-rank.ts";

const module = new URL("./link-rank.ts", import.meta.url);
const sizes = [4 << 10, 64 << 10, 1 << 20, 16 << 20];

type Way = "tcp" | "ucx" | "heap" | "bare";

async function measure(way: Way, work: LinkWork): Promise<LinkTimes> {
  if (way === "bare") return runBareSocket(work);
  const [times] = await runThreads<LinkTimes>({ size: 2, transport: way, module, data: work });
  return times as LinkTimes;
}

function shapeOf(bytes: number): string {
  return bytes >= 1 << 20 ? `${bytes >> 20} MiB a put` : `${bytes >> 10} KiB a put`;
}

const names: Readonly<Record<Exclude<Way, "bare">, string>> = {
  tcp: "TCP link",
  ucx: "UCX link (sysv, cma)",
  heap: "shared memory",
};

/** Rows of one way, with bare sockets as their peer. */
function rowsOf(
  way: Exclude<Way, "bare">,
  own: readonly LinkTimes[],
  bare: readonly LinkTimes[],
): BenchRow[] {
  const signalUs = median(own.map(({ signalUs: us }) => us));
  const bareUs = median(bare.map(({ signalUs: us }) => us));
  const peer = "one bare node:net connection";
  const rows: BenchRow[] = [
    {
      case: `${names[way]}: a signal, one way`,
      shape: "2 ranks",
      us: signalUs,
      rate: `${(1000 / signalUs).toFixed(0)} k/s`,
      peer,
      peerRatio: bareUs / signalUs,
    },
  ];
  sizes.forEach((bytes, i) => {
    const at = (times: readonly LinkTimes[]): number =>
      median(times.map(({ streams }) => streams[i]?.us ?? Number.NaN));
    rows.push({
      case: `${names[way]}: put and signal`,
      shape: shapeOf(bytes),
      us: at(own),
      gbs: bytes / at(own) / 1000,
      peer,
      peerRatio: at(bare) / at(own),
    });
  });
  return rows;
}

export async function run({ quick = false } = {}): Promise<readonly BenchRow[]> {
  const work = { rounds: quick ? 200 : 1000, sizes, total: (quick ? 32 : 128) << 20 };
  const ways: readonly Way[] = ["bare", "tcp", ...(hasUcx() ? (["ucx"] as const) : []), "heap"];
  const all = new Map<Way, LinkTimes[]>(ways.map((way) => [way, []]));
  for (let round = 0; round < (quick ? 1 : 5); round++) {
    for (const way of ways) all.get(way)?.push(await measure(way, work));
  }
  const bare = all.get("bare") ?? [];
  return ways.flatMap((way) => (way === "bare" ? [] : rowsOf(way, all.get(way) ?? [], bare)));
}
