// The peer of the link bench: the same round trips and streams over one bare node:net connection
// between two threads, without frames, windows or flags. Thread 0 connects and measures.

import { connect, createServer, type Socket } from "node:net";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import type { LinkTimes, LinkWork } from "./link-rank.ts";

interface Start {
  readonly port: number;
  readonly work: LinkWork;
}

const messageBytes = 64;

/** Measures on two threads of their own. */
export async function runBareSocket(work: LinkWork): Promise<LinkTimes> {
  const url = new URL(import.meta.url);
  const server = new Worker(url, { workerData: { port: 0, work } satisfies Start });
  const port = await new Promise<number>((resolve) => server.once("message", resolve));
  const client = new Worker(url, { workerData: { port, work } satisfies Start });
  const times = await new Promise<LinkTimes>((resolve, reject) => {
    client.once("message", resolve);
    client.once("error", reject);
    server.once("error", reject);
  });
  await Promise.all([server.terminate(), client.terminate()]);
  return times;
}

/** Echoes each message of the first phase, then answers each stream once it is complete. */
function serve(work: LinkWork): void {
  const server = createServer({ noDelay: true }, (socket) => {
    let trips = work.rounds * messageBytes;
    let size = 0;
    let left = 0;
    socket.on("data", (chunk: Buffer) => {
      if (trips > 0) {
        trips -= chunk.length;
        socket.write(chunk);
        return;
      }
      if (left === 0) left = streamBytes(work, size++);
      left -= chunk.length;
      if (left === 0) socket.write("x");
    });
    socket.on("error", () => {});
  });
  server.listen(0, "127.0.0.1", () => {
    parentPort?.postMessage((server.address() as { port: number }).port);
  });
}

function streamCount(work: LinkWork, bytes: number): number {
  return Math.max(8, Math.min(20_000, Math.floor(work.total / bytes)));
}

function streamBytes(work: LinkWork, index: number): number {
  const bytes = work.sizes[index] as number;
  return streamCount(work, bytes) * bytes;
}

function answer(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once("data", () => resolve()));
}

async function measure({ port, work }: Start): Promise<LinkTimes> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  await new Promise((resolve) => socket.once("connect", resolve));
  const message = new Uint8Array(messageBytes);
  const trips: number[] = [];
  for (let i = 0; i < work.rounds; i++) {
    const start = performance.now();
    const back = answer(socket);
    socket.write(message);
    await back;
    trips.push((performance.now() - start) * 500);
  }
  const streams: { bytes: number; us: number }[] = [];
  for (const bytes of work.sizes) {
    const count = streamCount(work, bytes);
    const source = new Uint8Array(bytes);
    const done = answer(socket);
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      if (socket.write(source)) continue;
      await new Promise((resolve) => socket.once("drain", resolve));
    }
    await done;
    streams.push({ bytes, us: ((performance.now() - start) * 1000) / count });
  }
  trips.sort((a, b) => a - b);
  return { signalUs: trips[trips.length >> 1] as number, streams };
}

if (!isMainThread) {
  const start = workerData as Start;
  if (start?.port === 0) serve(start.work);
  else if (start?.port > 0) measure(start).then((times) => parentPort?.postMessage(times));
}
