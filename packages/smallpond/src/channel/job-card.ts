// What an executor must know of its job, in a file of the job's folder that only the owner may
// read: the channel, the secret that seals messages, limits. So a launcher passes a path and
// nothing else, and no secret is ever on a command line, where everybody on a machine sees it.

import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "@open-infra/errors";
import type { Capacity } from "../executor/protocol.ts";
import type { StorageOptions } from "../task/disk.ts";
import type { Channel } from "./channel.ts";
import { FilesChannel, type FilesOptions } from "./files.ts";
import type { NatsOptions } from "./nats-connect.ts";
import { SealedChannel } from "./sealed.ts";

/** Which channel, with what it needs. */
export type ChannelChoice =
  | { readonly kind: "ipc" }
  | ({ readonly kind: "files" } & FilesOptions)
  | ({ readonly kind: "nats" } & NatsOptions);

/** Messages as files on the job's file system: no server, a few milliseconds a message. */
export function files(options: FilesOptions = {}): ChannelChoice {
  return { kind: "files", ...options };
}

/** Messages by a NATS server with JetStream. */
export function nats(options: NatsOptions = {}): ChannelChoice {
  return { kind: "nats", ...options };
}

/** What the file holds. */
export interface JobCard {
  /** Of one run of the job: executors of an earlier run must not meet those of this one. */
  readonly space: string;
  readonly channel: ChannelChoice;
  readonly secret: string;
  /** What executors may take on, where the user said it. */
  readonly capacity: Partial<Capacity>;
  readonly storage: StorageOptions;
  /** Version of the engine, which is part of tasks' keys. */
  readonly engine: string;
  /** An executor that hears nothing of its driver for so long ends. */
  readonly driverSilentMs: number;
}

const folderOf = (jobRoot: string): string => join(jobRoot, "channel");
const cardOf = (jobRoot: string): string => join(folderOf(jobRoot), "job.json");

/** A space and a secret of a new run. */
export function freshSpace(jobId: string): { readonly space: string; readonly secret: string } {
  const plain = jobId.replace(/[^A-Za-z0-9_-]/g, "_").slice(0, 40);
  return {
    space: `${plain}-${randomBytes(5).toString("hex")}`,
    secret: randomBytes(32).toString("base64url"),
  };
}

/** Puts the card where executors find it, and removes what earlier runs left. */
export function writeCard(jobRoot: string, card: JobCard): void {
  const folder = folderOf(jobRoot);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // Whatever the umask is.
  chmodSync(folder, 0o700);
  const aside = `${cardOf(jobRoot)}.new`;
  writeFileSync(aside, JSON.stringify(card), { mode: 0o600 });
  renameSync(aside, cardOf(jobRoot));
}

/** @throws InputError if there is none: no session runs there */
export function readCard(jobRoot: string): JobCard {
  try {
    return JSON.parse(readFileSync(cardOf(jobRoot), "utf8")) as JobCard;
  } catch (error) {
    const allowed = "the folder of a job whose session runs, as `session.folder.root` says";
    throw new InputError("jobRoot", jobRoot, allowed, { cause: error });
  }
}

/** The run is over. */
export function removeCard(jobRoot: string): void {
  rmSync(folderOf(jobRoot), { recursive: true, force: true });
}

/**
 * The job's channel, sealed. Pipes have no card.
 *
 * @param owner Whether this is the driver, which makes and removes what the channel needs.
 * @throws ChannelError
 */
export async function openChannel(
  jobRoot: string,
  card: Pick<JobCard, "space" | "channel" | "secret">,
  owner: boolean,
  onForged?: (where: string) => void,
): Promise<Channel> {
  const { space, channel, secret } = card;
  if (channel.kind === "ipc") throw new InputError("channel", "ipc", "files or nats");
  if (channel.kind === "files") {
    const root = join(folderOf(jobRoot), space);
    return new SealedChannel(new FilesChannel(root, channel), secret, onForged);
  }
  // Loaded when used: most sessions need no server's client.
  const { NatsChannel } = await import("./nats.ts");
  const largeFolder = join(folderOf(jobRoot), "large");
  const inner = await NatsChannel.open(channel, { space, largeFolder, owner });
  return new SealedChannel(inner, secret, onForged);
}
