// The worker's half of newest-worker.ts: runs the work for each message and sends the answer, with
// an input error's parameter, so that the page can put the sentence beside the right field.

import { InputError } from "@open-infra/errors";
import type { WorkerReply } from "./newest-worker.ts";

interface WorkerScope<Request> {
  onmessage: ((event: { readonly data: Request }) => void) | null;
  postMessage(message: unknown, transfer: readonly ArrayBuffer[]): void;
}

/** Why there is no answer, as the page is told it. */
export function failureOf(error: unknown): Extract<WorkerReply<never>, { kind: "failed" }> {
  const parameter = error instanceof InputError ? error.parameter : "";
  const message = error instanceof Error ? error.message : String(error);
  return { kind: "failed", parameter, message };
}

/** Answers every message with what `work` makes of it; what `buffersOf` names is handed over. */
export function answerWith<Request, Result>(
  work: (request: Request) => Result,
  buffersOf: (result: Result) => readonly ArrayBuffer[] = () => [],
): void {
  const scope = globalThis as unknown as WorkerScope<Request>;
  scope.onmessage = ({ data }) => {
    let result: Result;
    try {
      result = work(data);
    } catch (error) {
      scope.postMessage(failureOf(error), []);
      return;
    }
    const reply: WorkerReply<Result> = { kind: "done", result };
    scope.postMessage(reply, buffersOf(result));
  };
}
