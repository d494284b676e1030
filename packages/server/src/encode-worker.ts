// The thread that tokenises long texts. It opens the tokenizer of one model folder and answers one
// text after another; who asks, and when not to, is encoder.ts's business.

import { parentPort, workerData } from "node:worker_threads";
import { loadTokenizer } from "@open-infra/model";

/** What the thread is started with. */
export interface EncodeWorkerData {
  readonly dir: string;
}

export interface EncodeJob {
  readonly text: string;
  readonly addSpecialTokens: boolean;
}

export type EncodeResult = { readonly ids: Int32Array<ArrayBuffer> } | { readonly message: string };

const port = parentPort;
if (port === null) throw new Error("encode-worker is started as a worker thread only");

const { dir } = workerData as EncodeWorkerData;
const tokenizer = loadTokenizer(dir);

port.on("message", ({ text, addSpecialTokens }: EncodeJob) => {
  try {
    const ids = Int32Array.from(tokenizer.encode(text, { addSpecialTokens }));
    const result: EncodeResult = { ids };
    port.postMessage(result, [ids.buffer]);
  } catch (error) {
    const result: EncodeResult = { message: error instanceof Error ? error.message : "unknown" };
    port.postMessage(result);
  }
});
