// Activation buffers. A buffer has a name and grows to the largest size it was asked for; a step of
// the same shape as the last finds its tensors ready, so that steady decoding allocates nothing.

import { byteSize, type DType, HostStorage, Tensor } from "@open-infra/tensor";

export class Workspace implements Disposable {
  readonly #storages = new Map<string, HostStorage>();
  readonly #tensors = new Map<string, Tensor>();

  /**
   * The buffer `name` as a tensor of this shape and dtype. Its content is whatever was left there,
   * and asking again under the same name may give the same memory.
   */
  tensor<D extends DType>(name: string, shape: readonly number[], dtype: D): Tensor<D> {
    const known = this.#tensors.get(name);
    if (known !== undefined && known.dtype === dtype && sameShape(known.shape, shape)) {
      return known as Tensor<D>;
    }
    const bytes = byteSize(
      dtype,
      shape.reduce((a, b) => a * b, 1),
    );
    let storage = this.#storages.get(name);
    if (storage === undefined || storage.byteLength < bytes) {
      storage?.[Symbol.dispose]();
      storage = HostStorage.allocate(Math.max(bytes, 64));
      this.#storages.set(name, storage);
    }
    const tensor = new Tensor({ dtype, shape, storage, name });
    this.#tensors.set(name, tensor);
    return tensor;
  }

  /** Bytes held. */
  get byteLength(): number {
    let sum = 0;
    for (const storage of this.#storages.values()) sum += storage.byteLength;
    return sum;
  }

  [Symbol.dispose](): void {
    for (const storage of this.#storages.values()) storage[Symbol.dispose]();
    this.#storages.clear();
    this.#tensors.clear();
  }
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}
