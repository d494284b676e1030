// Errors that every package above shares. They carry the facts as fields, so that a caller (the
// HTTP layer, a test) can act on them without parsing the sentence.

/** Base of all errors raised on purpose by this project; `code` is stable, the message is for people. */
export class InfraError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A tensor has the wrong rank, size, stride or layout for what was asked of it. */
export class ShapeError extends InfraError {
  readonly tensor: string;
  readonly got: string;
  readonly allowed: string;

  constructor(where: string, tensor: string, got: string, allowed: string) {
    super("shape", `${where}: ${tensor} is ${got}; expected ${allowed}`);
    this.tensor = tensor;
    this.got = got;
    this.allowed = allowed;
  }
}

/** A tensor has a dtype the operation does not take. */
export class DTypeError extends InfraError {
  readonly tensor: string;
  readonly got: string;
  readonly allowed: string;

  constructor(where: string, tensor: string, got: string, allowed: string) {
    super("dtype", `${where}: ${tensor} has dtype ${got}; expected ${allowed}`);
    this.tensor = tensor;
    this.got = got;
    this.allowed = allowed;
  }
}

/** A tensor was used after its storage was disposed, or memory could not be had. */
export class StorageError extends InfraError {
  constructor(message: string, options?: ErrorOptions) {
    super("storage", message, options);
  }
}

/** A file of weights is damaged, incomplete, or not what was asked of it. */
export class CheckpointError extends InfraError {
  readonly file: string;
  /** The tensor, or the part of the file or its header. */
  readonly key: string;
  readonly got: string;
  readonly allowed: string;

  constructor(file: string, key: string, got: string, allowed: string, options?: ErrorOptions) {
    super("checkpoint", `${file}: ${key} is ${got}; expected ${allowed}`, options);
    this.file = file;
    this.key = key;
    this.got = got;
    this.allowed = allowed;
  }
}
