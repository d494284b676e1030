// The rule of a warm-up's body, shared by all devices.

import { DeviceError } from "./errors.ts";

/** Calls the body of a warm-up. @throws DeviceError if it turns out to be asynchronous. */
export function noteLaunches(body: () => void): void {
  const result: unknown = body();
  if (result instanceof Promise) {
    result.catch(() => {}); // What it throws later is of no interest beside this.
    throw new DeviceError(
      "The body of a warm-up must not be asynchronous: it would launch for real",
    );
  }
}
