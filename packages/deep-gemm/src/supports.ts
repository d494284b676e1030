// Whether a function of this package can run on a backend for given shapes, asked without memory
// for them and without computing anything.

import type { BackendName, Device, Operation } from "@open-infra/jit";
import { byteSize, type DType, InfraError, type Storage, Tensor } from "@open-infra/tensor";

/** A tensor that is only described. */
export interface TensorSpec {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** In elements; row-major when left out. */
  readonly strides?: readonly number[] | undefined;
}

/** The options of a function, where each tensor may be one or a description of one. */
export type SpecOf<T> = T extends Tensor
  ? Tensor | TensorSpec
  : T extends readonly (infer U)[]
    ? readonly SpecOf<U>[]
    : T extends object
      ? { readonly [K in keyof T]: SpecOf<T[K]> }
      : T;

/** A function of this package: what it runs on, and its options. */
export type DeviceFunction<A> = (device: Device, args: A) => unknown;

/** Memory that is not there. */
class NoStorage implements Storage {
  readonly kind = "device";
  readonly disposed = false;
  readonly byteLength: number;

  constructor(byteLength: number) {
    this.byteLength = byteLength;
  }

  [Symbol.dispose](): void {}
}

function isSpec(value: object): value is TensorSpec {
  return "dtype" in value && "shape" in value;
}

/** Tensors for descriptions; index tensors get memory, because their content is checked. */
function withTensors(value: unknown): unknown {
  if (value instanceof Tensor || typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(withTensors);
  if (!isSpec(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, withTensors(v)]));
  }
  const { dtype, shape, strides } = value;
  if (dtype === "i32") return Tensor.empty(shape, dtype);
  const last = strides?.reduce((at, s, i) => at + s * ((shape[i] as number) - 1), 0);
  const count = last === undefined ? shape.reduce((a, b) => a * b, 1) : last + 1;
  const storage = new NoStorage(byteSize(dtype, Math.max(0, count)));
  return new Tensor({ dtype, shape, storage, ...(strides === undefined ? {} : { strides }) });
}

/** Thrown by {@link AskingDevice} to leave the function that asked. */
class Refusal extends InfraError {
  constructor(reason: string) {
    super("unsupported", reason);
  }
}

/** A device that checks, asks whether it could run, and runs nothing. */
class AskingDevice implements Device {
  readonly backend: BackendName;
  readonly description = "asks, never runs";
  readonly threads: number;
  readonly #device: Device | undefined;

  constructor(backend: BackendName | Device) {
    this.#device = typeof backend === "string" ? undefined : backend;
    this.backend = typeof backend === "string" ? backend : backend.backend;
    this.threads = this.#device?.threads ?? 1;
  }

  run<A>(operation: Operation<A>, args: A): void {
    operation.check(args);
    const answer = this.supports(operation, args);
    if (answer !== true) throw new Refusal(answer);
  }

  supports<A>(operation: Operation<A>, args: A): true | string {
    if (this.#device !== undefined) return this.#device.supports(operation, args);
    if (this.backend === "reference") return true;
    if (operation.kernels[this.backend] === undefined) {
      return `no ${this.backend} kernel for ${operation.name}`;
    }
    return operation.unsupported?.(args, this.backend) ?? true;
  }

  async warmup(body: () => void): Promise<void> {
    body();
  }

  [Symbol.dispose](): void {}
}

/**
 * True if `op` can run with these arguments on a backend, else the reason. Tensors may be described
 * instead of made: `{dtype, shape, strides?}`; of index tensors only the shape is judged then,
 * their content as zeros.
 */
export function supports<A>(
  op: DeviceFunction<A>,
  shapes: SpecOf<A>,
  backend: BackendName | Device,
): true | string {
  try {
    op(new AskingDevice(backend), withTensors(shapes) as A);
    return true;
  } catch (error) {
    if (error instanceof InfraError) return error.message;
    throw error;
  }
}
