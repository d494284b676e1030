// How an error crosses a thread: as plain data with code, fields and cause, made into the same
// class on the other side, so that `instanceof` works on both. It keeps scalar fields only; whoever
// has richer ones sends them beside the error.

import { InfraError } from "./infra-error.ts";

/** An error as plain data. */
export interface SerializedError {
  readonly name: string;
  /** An `InfraError`'s code; `internal` for any other. */
  readonly code: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
  readonly stack: string;
  readonly cause?: SerializedError;
}

/** Any thrown value as plain data; scalar fields and the chain of causes are kept. */
export function serializeError(error: unknown): SerializedError {
  if (!(error instanceof Error)) {
    return { name: "Error", code: "internal", message: String(error), fields: {}, stack: "" };
  }
  const fields: Record<string, string | number | boolean> = {};
  for (const [key, value] of Object.entries(error)) {
    if (key === "code" || key === "name") continue;
    if (["string", "number", "boolean"].includes(typeof value)) fields[key] = value;
  }
  return {
    name: error.name,
    code: error instanceof InfraError ? error.code : "internal",
    message: error.message,
    fields,
    stack: error.stack ?? "",
    ...(error.cause !== undefined && { cause: serializeError(error.cause) }),
  };
}

/**
 * The error again.
 *
 * @param classes Those it may become, found by name; any other is an InfraError of its name and
 *   code.
 */
export function deserializeError(
  data: SerializedError,
  classes: readonly { readonly name: string; readonly prototype: InfraError }[],
): InfraError {
  const cause = data.cause && deserializeError(data.cause, classes);
  const error = new InfraError(data.code, data.message, cause && { cause });
  Object.assign(error, data.fields);
  error.name = data.name;
  if (data.stack !== "") error.stack = data.stack;
  const known = classes.find(({ name }) => name === data.name);
  if (known !== undefined) Object.setPrototypeOf(error, known.prototype);
  return error;
}
