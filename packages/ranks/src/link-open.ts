// Chooses and opens the links of a rank that is joining: which carrier, which address, which secret.

import { randomBytes } from "node:crypto";
import { availableParallelism, networkInterfaces } from "node:os";
import { describeRank } from "./errors.ts";
import type { Card, JoinOptions, LinkKind } from "./group-options.ts";
import { openLink, type WorkerLink } from "./link-host.ts";
import type { CarrierKind } from "./link-messages.ts";
import type { Store } from "./store.ts";
import { isLoopback } from "./tcp-guard.ts";

/** What a store over TCP knows beyond the Store interface. */
interface NetworkStore extends Store {
  readonly secret?: string;
  readonly localAddress?: string;
}

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
  const store = options.store as NetworkStore;
  const kind: CarrierKind = chosen.includes("ucx") ? "ucx" : "tcp";
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
  return { links: chosen, link };
}

/** Ranks whose store is within one process need no secret of the user's. */
async function groupSecret(store: Store, rank: number): Promise<string> {
  if (rank === 0) await store.set("link/secret", randomBytes(32).toString("hex"));
  return store.get("link/secret");
}

/** The address this machine is known by, as far as can be told. */
function linkHost(store: NetworkStore, oneHost: boolean): string {
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
