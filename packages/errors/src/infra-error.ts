// The base of all errors raised on purpose. They carry the facts as fields, so that a caller (the
// HTTP layer, the command, a test) can act on them without parsing the sentence. Imports nothing
// and runs anywhere, the browser included.

/** `code` is stable, the message is for people. */
export class InfraError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** An argument, option or field of an input cannot be used; the caller must change it. */
export class InputError extends InfraError {
  /** What was wrong, as the caller wrote it: `numGpus`, `weight[3][17]`, `traceEvents[12].ts`. */
  readonly parameter: string;
  readonly got: string;
  readonly allowed: string;

  constructor(parameter: string, got: string, allowed: string, options?: ErrorOptions) {
    super("input", `${parameter} is ${got}; expected ${allowed}`, options);
    this.parameter = parameter;
    this.got = got;
    this.allowed = allowed;
  }
}
