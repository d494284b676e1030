// The public face of the package: the base of all errors, and how errors cross a thread.

export { InfraError, InputError } from "./infra-error.ts";
export { deserializeError, type SerializedError, serializeError } from "./serialize.ts";
