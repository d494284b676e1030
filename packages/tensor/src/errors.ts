// Errors about tensors and checkpoints, and the base that every package above shares.

import { InfraError } from "@open-infra/errors";

export { InfraError };

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

/** A number cannot be represented in the dtype it is converted to. */
export class ConversionError extends InfraError {
  readonly dtype: string;
  readonly tensor: string;
  /** Of the element, in row-major order. */
  readonly index: number;
  readonly got: number;
  readonly allowed: string;

  constructor(dtype: string, index: number, got: number, allowed: string, tensor = "values") {
    super("conversion", `${dtype}: element ${index} of ${tensor} is ${got}; expected ${allowed}`);
    this.dtype = dtype;
    this.tensor = tensor;
    this.index = index;
    this.got = got;
    this.allowed = allowed;
  }

  /** The same complaint about element `index` of `tensor`, as its owner knows it. */
  at(index: number, tensor: string = this.tensor): ConversionError {
    return new ConversionError(this.dtype, index, this.got, this.allowed, tensor);
  }
}
