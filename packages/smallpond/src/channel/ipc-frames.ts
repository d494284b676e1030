// What goes through the pipe between a parent and a child, both ways.

/** One message of the pipe. */
export type Frame =
  | { readonly op: "send"; readonly queue: string; readonly id: string; readonly body: string }
  | {
      readonly op: "consume";
      readonly consumer: number;
      readonly queue: string;
      readonly inFlight: number;
      readonly leaseMs: number;
    }
  | { readonly op: "cancel"; readonly consumer: number }
  | {
      readonly op: "deliver";
      readonly consumer: number;
      readonly id: string;
      readonly body: string;
      readonly redelivered: boolean;
    }
  | { readonly op: "ack"; readonly consumer: number; readonly id: string }
  | { readonly op: "drop"; readonly queue: string }
  | { readonly op: "watch" }
  | { readonly op: "beat"; readonly from: string; readonly body: string }
  /** The child's process is not frozen. */
  | { readonly op: "awake" };

/** A child that has something in hand says so often that it is awake. */
export const awakeMs = 250;

/** Frames and other messages share a pipe. */
export function isFrame(message: unknown): message is Frame {
  return typeof message === "object" && message !== null && "op" in message;
}
