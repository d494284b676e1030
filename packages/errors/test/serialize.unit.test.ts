// Errors as they cross a thread: class, fields, stack and causes survive; strangers stay readable.

import { deserializeError, InfraError, InputError, serializeError } from "@open-infra/errors";
import { describe, expect, it } from "vitest";

describe("an error across threads", () => {
  it("keeps class, fields, stack and the chain of causes", () => {
    const error = new InputError("numGpus", "7", "8", { cause: new RangeError("seven") });
    const again = deserializeError(structuredClone(serializeError(error)), [InputError]);
    expect(again).toBeInstanceOf(InputError);
    expect(again).toMatchObject({ code: "input", parameter: "numGpus", got: "7", allowed: "8" });
    expect(again.message).toBe(error.message);
    expect(again.stack).toBe(error.stack);
    expect(again.cause).toMatchObject({ name: "RangeError", code: "internal", message: "seven" });
  });

  it("of a class that is not known is an InfraError of its name and code", () => {
    const again = deserializeError(serializeError(new InputError("a", "b", "c")), []);
    expect(again).not.toBeInstanceOf(InputError);
    expect(again).toBeInstanceOf(InfraError);
    expect(again).toMatchObject({ name: "InputError", code: "input", parameter: "a" });
  });

  it("that was no error says what was thrown", () => {
    expect(deserializeError(serializeError("no"), [])).toMatchObject({
      name: "Error",
      code: "internal",
      message: "no",
    });
  });
});
