// Sessions over a real NATS server: killed and started again, wrong in every way, with TLS, and
// with a stranger who may publish what they like.

import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jetstream } from "@nats-io/jetstream";
import { connect, nkeys } from "@nats-io/transport-node";
import { requirement } from "@open-infra/testing";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type JobCard, openChannel } from "../src/channel/job-card.ts";
import {
  ChannelError,
  fromModule,
  init,
  type NatsOptions,
  nats,
  type Session,
  type TaskEvent,
} from "../src/index.ts";
import { freePort, natsServer, selfSigned, TestNats } from "./cluster/nats-server.ts";

const skip = requirement("smallpond over NATS", natsServer);
const steps = new URL("./steps.ts", import.meta.url);
const servers: TestNats[] = [];
let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "smallpond-over-nats-"));
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
  rmSync(root, { recursive: true, force: true });
});

async function serve(flags: readonly string[] = [], jetstreamOn = true): Promise<TestNats> {
  const server = await TestNats.start(flags, jetstreamOn);
  servers.push(server);
  return server;
}

function open(options: NatsOptions): Promise<Session> {
  const size = { numExecutors: 2, executorCpus: 1, executorMemoryBytes: 2 ** 29 };
  return init({ dataRoot: root, jobId: "job", ...size, channel: nats(options) });
}

async function refusal(options: NatsOptions): Promise<ChannelError> {
  const failure = await open({ connectTimeoutMs: 2_000, ...options }).catch((error) => error);
  expect(failure).toBeInstanceOf(ChannelError);
  return failure as ChannelError;
}

async function runs(session: Session, tasks: number): Promise<void> {
  const items = Array.from({ length: tasks * 10 }, (_, i) => i);
  const frame = (await session.fromItems(items)).repartition(tasks, { byRows: true });
  const rows = await frame.mapBatches(fromModule(steps, "slow", [20])).takeAll();
  const sorted = rows.map((row) => Number(row.item)).sort((a, b) => a - b);
  expect(sorted).toEqual(items);
}

test.skipIf(skip)(
  "the server is killed in the middle and comes back: nothing lost or doubled",
  async () => {
    const server = await serve(["--user", "u", "--pass", "p"]);
    await using session = await open({ servers: server.url, user: "u", password: "p" });
    const events: TaskEvent[] = [];
    let kills = 0;
    let back: Promise<void> = Promise.resolve();
    session.listen((event) => {
      events.push(event);
      const finished = events.filter(({ type }) => type === "finished").length;
      if (finished < 10 * (kills + 1) || kills >= 2) return;
      kills++;
      back = server.kill().then(async () => {
        await new Promise((resolve) => setTimeout(resolve, 300));
        await server.up();
      });
    });
    await runs(session, 40);
    await back;
    expect(kills).toBe(2);
    const finished = events.filter(({ type }) => type === "finished").map(({ task }) => task.key);
    expect(new Set(finished).size).toBe(finished.length);
    expect(finished.length).toBeGreaterThanOrEqual(40);
    expect(events.filter(({ type }) => type === "failed")).toEqual([]);
  },
);

test.skipIf(skip)(
  "a server that cannot be used is an error that says why, without secrets",
  async () => {
    const port = await freePort();
    const nobody = await refusal({ servers: `nats://u:hidden@127.0.0.1:${port}` });
    expect(nobody.reason).toBe("unreachable");
    expect(nobody.message).toContain(`nats://127.0.0.1:${port}`);
    const locked = await serve(["--user", "u", "--pass", "p"]);
    const wrong = await refusal({ servers: locked.url, user: "u", password: "hidden" });
    expect(wrong.reason).toBe("credentials");
    expect(wrong.message).toContain(locked.url);
    const token = await refusal({ servers: locked.url, token: "hidden" });
    expect(token.reason).toBe("credentials");
    const plain = await serve([], false);
    const noStore = await refusal({ servers: plain.url });
    expect(noStore.reason).toBe("no-jetstream");
    expect(noStore.message).toContain(plain.url);
    for (const error of [nobody, wrong, token, noStore]) {
      expect(`${error.message} ${JSON.stringify(error)}`).not.toContain("hidden");
    }
  },
);

test.skipIf(skip)("TLS with a certificate of one's own, and not without it", async () => {
  const { cert, key } = selfSigned(root);
  const server = await serve(["--tls", "--tlscert", cert, "--tlskey", key]);
  const untrusted = await refusal({ servers: server.url });
  expect(untrusted.reason).toBe("tls");
  await using session = await open({ servers: server.url, tls: { caFile: cert } });
  await runs(session, 4);
});

test.skipIf(skip)("a key's seed in a file opens the server, another one does not", async () => {
  const [mine, other] = [nkeys.createUser(), nkeys.createUser()];
  const configuration = join(root, "server.conf");
  writeFileSync(configuration, `authorization { users: [ { nkey: ${mine.getPublicKey()} } ] }\n`);
  const seedOf = (name: string, key: typeof mine): string => {
    const file = join(root, name);
    writeFileSync(file, `${new TextDecoder().decode(key.getSeed())}\n`, { mode: 0o600 });
    return file;
  };
  const server = await serve(["-c", configuration]);
  const wrong = await refusal({ servers: server.url, nkeySeedFile: seedOf("other.nk", other) });
  expect(wrong.reason).toBe("credentials");
  const missing = await refusal({ servers: server.url, nkeySeedFile: join(root, "none.nk") });
  expect(missing.message).toContain("none.nk");
  await using session = await open({ servers: server.url, nkeySeedFile: seedOf("my.nk", mine) });
  await runs(session, 2);
});

test.skipIf(skip)("a stranger's messages are not run, and secrets are for the owner", async () => {
  const server = await serve();
  await using session = await open({ servers: server.url });
  await runs(session, 4);
  const file = join(session.folder.root, "channel", "job.json");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const card = JSON.parse(readFileSync(file, "utf8")) as JobCard;
  const marker = join(root, "stranger-was-here");
  const forged = JSON.stringify({
    run: { task: { key: "x", op: { kind: "sql", queries: [`COPY (SELECT 1) TO '${marker}'`] } } },
    attempt: 0,
    memoryBytes: 2 ** 20,
  });
  const stranger = await connect({ servers: server.url });
  const subject = `open-infra.smallpond.${card.space}.queue.to-local-0`;
  await jetstream(stranger).publish(subject, forged);
  await jetstream(stranger).publish(subject, "A".repeat(43) + forged);
  await stranger.close();
  // Nor with another secret.
  const thief = await openChannel(session.folder.root, { ...card, secret: "guessed" }, false);
  await thief.send("to-local-0", "f0", JSON.stringify({ shutdown: true }));
  await thief.close();
  await runs(session, 6);
  expect(Object.keys(session.executorPids)).toEqual(["local-0", "local-1"]);
  expect(statSync(marker, { throwIfNoEntry: false })).toBeUndefined();
});
