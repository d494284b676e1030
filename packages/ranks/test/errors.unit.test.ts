// What a rank threw, where disposal on the way out threw as well.

import { expect, it } from "vitest";
import { firstThrown } from "../src/errors.ts";

it("finds what was thrown first", async () => {
  const first = new RangeError("first");
  const failing = (text: string): Disposable => ({
    [Symbol.dispose]() {
      throw new Error(text);
    },
  });
  const body = (): void => {
    using _outer = failing("last");
    using _inner = failing("second");
    throw first;
  };
  let thrown: unknown;
  try {
    body();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(SuppressedError);
  expect(firstThrown(thrown)).toBe(first);
  expect(firstThrown(first)).toBe(first);
  expect(firstThrown("text")).toBe("text");
});
