// The worked case of two hops and one, the counters that prove the copies, and how calls fail.

import { runThreads } from "@open-infra/ranks";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { lacks } from "./worlds.ts";

const skip = lacks("the worked case");
const module = new URL("./worked-rank.ts", import.meta.url);
const topk = [
  [
    [0, 1],
    [2, 5],
    [7, -1],
  ],
  [
    [3, 2],
    [6, 7],
    [0, 4],
  ],
  [
    [5, 4],
    [1, 6],
    [2, 3],
  ],
  [
    [-1, -1],
    [0, 7],
    [6, 3],
  ],
];

interface Worked {
  readonly numTokensPerRank: number[];
  readonly numTokensPerExpert: number[];
  readonly received: [source: number, token: number, experts: number[]][];
  readonly perExpert: number[];
  readonly prefix: number[];
  readonly combined: number[];
  readonly weights: number[];
  readonly traffic: { self: number; node: number; network: number };
}

describe.skipIf(skip)("the worked case of four ranks", () => {
  it.each([4, 2, 1, 3])("%d ranks a node", async (ranksPerNode) => {
    const ranks = await runThreads<Worked>({
      size: 4,
      ranksPerNode,
      module,
      export: "workedCase",
      data: { topk },
      timeoutMs: 20_000,
    });
    const of = <K extends keyof Worked>(name: K): Worked[K][] => ranks.map((rank) => rank[name]);
    expect(of("numTokensPerRank")).toEqual([
      [1, 1, 1, 1],
      [1, 1, 1, 1],
      [1, 1, 1, 1],
      [1, 1, 0, 2],
    ]);
    expect(of("numTokensPerExpert")).toEqual([
      [1, 1, 1, 0, 0, 1, 0, 1],
      [1, 0, 1, 1, 1, 0, 1, 1],
      [0, 1, 1, 1, 1, 1, 1, 0],
      [1, 0, 0, 1, 0, 0, 1, 1],
    ]);
    expect(of("received")).toEqual([
      [
        [0, 0, [0, 1]],
        [1, 2, [0, -1]],
        [2, 1, [1, -1]],
        [3, 1, [0, -1]],
      ],
      [
        [0, 1, [0, -1]],
        [1, 0, [1, 0]],
        [2, 2, [0, 1]],
        [3, 2, [-1, 1]],
      ],
      [
        [0, 1, [-1, 1]],
        [1, 2, [-1, 0]],
        [2, 0, [1, 0]],
      ],
      [
        [0, 2, [1, -1]],
        [1, 1, [0, 1]],
        [2, 1, [-1, 0]],
        [3, 1, [-1, 1]],
        [3, 2, [0, -1]],
      ],
    ]);
    expect(of("perExpert")).toEqual([
      [3, 2],
      [3, 3],
      [2, 2],
      [3, 3],
    ]);
    expect(of("prefix")).toEqual([
      [1, 2, 3, 4],
      [1, 2, 3, 4],
      [1, 2, 3, 3],
      [1, 2, 3, 5],
    ]);
    expect(of("combined")).toEqual([
      [0, 2, 2],
      [10, 11, 24],
      [20, 42, 22],
      [0, 62, 64],
    ]);
    expect(of("weights")).toEqual(
      topk.map((tokens) => tokens.flat().map((e) => (e < 0 ? 0 : 0.5))),
    );
  });
});

describe.skipIf(skip)("bytes between nodes", () => {
  it("are one record a token and distinct other node, and one sum back", async () => {
    const random = seededRandom(testSeed());
    const size = 8;
    const ranksPerNode = 2;
    const hidden = 192;
    const groups = 2; // nodes that a token's experts come from
    const chosen = Array.from({ length: size }, () =>
      Array.from({ length: 20 }, () => {
        const nodes = [random.int(0, 4), random.int(0, 4)];
        // Two experts live on a node.
        return nodes.slice(0, groups).map((node) => node * 2 + random.int(0, 2));
      }),
    );
    const ranks = await runThreads<Worked>({
      size,
      ranksPerNode,
      module,
      export: "workedCase",
      data: { topk: chosen, hidden },
      timeoutMs: 20_000,
    });
    // x, top-k as i32, weights, token, a byte a rank of the node; whole cache lines.
    const record = Math.ceil((hidden * 2 + 2 * 4 + 2 * 4 + 4 + ranksPerNode) / 64) * 64;
    const sum = hidden * 2 + 2 * 4;
    const nodeOf = (expert: number): number => Math.floor(expert / 2);
    let back = new Array<number>(size).fill(0);
    const out = chosen.map((tokens, rank) => {
      const own = Math.floor(rank / ranksPerNode);
      let copies = 0;
      for (const experts of tokens) {
        for (const node of new Set(experts.map(nodeOf))) {
          if (node === own) continue;
          copies++;
          // Whoever forwarded it returns its sum.
          const forwarder = node * ranksPerNode + (rank % ranksPerNode);
          back = back.with(forwarder, (back[forwarder] as number) + sum);
        }
      }
      expect(copies).toBeLessThanOrEqual(tokens.length * groups);
      return copies * record;
    });
    const seen = ranks.map(({ traffic }) => traffic.network);
    expect(seen, `seed ${random.seed}`).toEqual(
      out.map((bytes, rank) => bytes + (back[rank] ?? 0)),
    );
  });
});

describe.skipIf(skip)("what does not fit", () => {
  it("is the same error on all ranks, who go on once there is room", async () => {
    const ranks = await runThreads<Record<string, unknown>>({
      size: 3,
      module,
      export: "tooSmall",
      timeoutMs: 20_000,
    });
    for (const rank of ranks)
      expect(rank).toMatchObject({ ...ranks[0], rows: rank.rows as object });
    expect(ranks[0]).toMatchObject({ rank: 1, capacityBytes: 8192 });
    expect(ranks[0]?.message).toMatch(/rank 1 needs a window of \d+ bytes; it has 8192/);
    expect(ranks.map(({ rows }) => rows)).toEqual([[], [1, 2, 3], []]);
  });

  it("numWorstTokens names the rank that receives more", async () => {
    const options = { size: 2, module, export: "worstTooSmall", timeoutMs: 20_000 };
    const text = "numWorstTokens is 11; expected at least 20, which rank 0 receives or forwards";
    expect(await runThreads(options)).toEqual([text, text]);
  });

  it("is refused before anything is sent", async () => {
    const [messages = []] = await runThreads<string[]>({
      size: 2,
      module,
      export: "refusals",
      timeoutMs: 20_000,
    });
    expect(messages).toEqual([
      expect.stringMatching(/numExperts is 5; expected a multiple of the 2 ranks/),
      expect.stringMatching(/topkIdx\[0\]\[0\] is 99; expected −1 to 3/),
      expect.stringMatching(/x is tensor i32\[2,64\]/),
      expect.stringMatching(/numTokensPerRank is missing/),
      expect.stringMatching(/topkIdx and topkWeights is one of them/),
      expect.stringMatching(/isTokenInRank is tensor u8\[2,2\]; expected contiguous u8 of \[3,2\]/),
      expect.stringMatching(/allocateOnCommStream is true; expected with previousEvent/),
      expect.stringMatching(/expertAlignment is 0; expected an integer of at least 1/),
      expect.stringMatching(/numWorkers is 0/),
      expect.stringMatching(/made without lowLatencyMode/),
      expect.stringMatching(/dimension 5/),
    ]);
  });
});

describe.skipIf(skip)("ranks that disagree", () => {
  it.each([
    ["hidden", /bytes of a row: \d+ there, \d+ here, from rank/],
    ["experts", /experts: \d+ there, \d+ here, from rank/],
    ["cached", /that rank is in (cached dispatch|the counts of dispatch), this one in/],
    ["mostTokens", /most tokens of a rank: \d there, \d here, from rank/],
    ["counts", /numTokensPerRank does not count the tokens of isTokenInRank, from rank 1/],
  ])("about %s fail with what differs and who", async (data, message) => {
    const run = runThreads({ size: 3, module, export: "disagree", data, timeoutMs: 20_000 });
    await expect(run).rejects.toMatchObject({
      name: expect.stringMatching(/RankMismatchError|GroupAbortedError/),
      message: expect.stringMatching(message),
    });
  });
});

it.skipIf(skip)("memory comes back, results are refused when their time is over", async () => {
  const ranks = await runThreads<object>({
    size: 2,
    module,
    export: "lifecycle",
    timeoutMs: 20_000,
  });
  ranks.forEach((rank, i) => {
    const sum = 100 * 512 * 2; // both ranks hold each token
    expect(rank).toEqual({
      sums: [sum, sum, sum],
      used: 0,
      alive: [expect.stringMatching(/used after its memory was disposed/), 2048, 2048],
      waits: [1 - i],
    });
  });
});
