// Events: waits, hooks, release, failures that leave the group whole.

import { BufferStateError, EventOverlap } from "@open-infra/deep-ep";
import { expect, it } from "vitest";

it("runs a hook after the first wait, once", () => {
  const event = new EventOverlap();
  const calls: string[] = [];
  event.registerHookAfterWait(() => calls.push("hook"));
  expect(() => event.registerHookAfterWait(() => {})).toThrow(BufferStateError);
  event.currentStreamWait();
  event.currentStreamWait();
  expect(calls).toEqual(["hook"]);
  event.registerHookAfterWait(() => calls.push("again"));
  event.currentStreamWait(true);
  expect(calls).toEqual(["hook", "again"]);
  expect(() => event.currentStreamWait()).toThrow(/released by an earlier wait/);
});

it("waits at the end of a block, and tells how the operation ended", async () => {
  let checked = 0;
  {
    using event = new EventOverlap(undefined, [], () => checked++);
    expect(event.done).toBe(true);
  }
  expect(checked).toBe(1);
  const failed = new EventOverlap(undefined, [], () => {
    throw new BufferStateError("no room");
  });
  expect(() => failed.currentStreamWait()).toThrow("no room");
  await expect(failed.finished()).rejects.toThrow("no room");
});
