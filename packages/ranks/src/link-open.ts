// Chooses and opens the links of a rank that is joining: which carrier, which address, which
// secret.

import { randomBytes } from "node:crypto";
import { availableParallelism, networkInterfaces } from "node:os";
import { describeRank } from "./errors.ts";
import type { Card, JoinOptions, LinkKind } from "./group-options.ts";
import { openLink, type WorkerLink } from "./link-host.ts";
import type { CarrierKind } from "./link-messages.ts";
import type { Store } from "./store.ts";
import { isLoopback } from "./tcp-guard.ts";
import { hasRdma, hasUcx } from "./ucx-library.ts";

/**
 * Opens what `chosen` asks for; peers in shared memory need nothing.
 *
 * @throws UnreachableError, SecretRefusedError, UcxMissingError
 */
export async function openLinks(
  options: JoinOptions & { readonly timeoutMs: number },
  cards: readonly Card[],
  chosen: readonly LinkKind[],
): Promise<{ links: readonly LinkKind[]; link: WorkerLink | undefined }> {
  const { rank, size, timeoutMs } = options;
  const peers = chosen.flatMap((kind, peer) => (kind === "tcp" || kind === "ucx" ? [peer] : []));
  if (peers.length === 0) return { links: chosen, link: undefined };
  const { store } = options;
  const isAuto = options.transport === undefined || options.transport === "auto";
  const asked: CarrierKind = chosen.includes("ucx") ? "ucx" : "tcp";
  const kind = isAuto ? await chooseCarrier(options) : asked;
  const links = chosen.map((link) => (link === "tcp" || link === "ucx" ? kind : link));
  const own = cards[rank] as Card;
  const sameHost = cards.filter(({ machine }) => machine === own.machine).length;
  const link = await openLink({
    ...{ kind, rank, size, peers, store, timeoutMs },
    sharesHost: cards.map(({ machine }) => machine === own.machine),
    names: cards.map((card) => describeRank(card)),
    host: options.linkHost ?? linkHost(store, sameHost === size),
    secret: options.secret ?? store.secret ?? (await groupSecret(store, rank)),
    // A thread that stays awake takes a core from a rank that computes.
    spinUs: 2 * sameHost > availableParallelism() ? 0 : 50,
  });
  return { links, link };
}

/**
 * UCX where every rank has it and hardware for it. On plain Ethernet it would be no faster than
 * TCP, and would let anyone in who can reach its port.
 */
async function chooseCarrier(options: JoinOptions & { timeoutMs: number }): Promise<CarrierKind> {
  const { store, rank, size, timeoutMs } = options;
  await store.set(`link/rdma/${rank}`, hasRdma() && hasUcx() ? "yes" : "no");
  const all = Array.from({ length: size }, (_, peer) =>
    store.get(`link/rdma/${peer}`, { timeoutMs }),
  );
  return (await Promise.all(all)).every((answer) => answer === "yes") ? "ucx" : "tcp";
}

/** Ranks whose store is within one process need no secret of the user's. */
async function groupSecret(store: Store, rank: number): Promise<string> {
  if (rank === 0) await store.set("link/secret", randomBytes(32).toString("hex"));
  return store.get("link/secret");
}

/** The address this machine is known by, as far as can be told. */
function linkHost(store: Store, oneHost: boolean): string {
  const seen = store.localAddress ?? "127.0.0.1";
  if (oneHost || !isLoopback(seen)) return seen;
  // Reached over loopback by this rank, but others come from elsewhere.
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { address, internal, family } of addresses ?? []) {
      if (!internal && family === "IPv4") return address;
    }
  }
  return seen;
}
