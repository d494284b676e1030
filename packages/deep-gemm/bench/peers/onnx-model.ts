// The smallest ONNX file: D = A · W with the weights inside, written field by field as protocol
// buffers. It knows the few fields that takes and nothing else of the format.

/** A field whose value has a length: bytes, text, or a message. */
function field(number: number, value: Uint8Array | string): Buffer {
  const bytes = Buffer.from(value as Uint8Array);
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes]);
}

function integer(number: number, value: number): Buffer {
  return Buffer.concat([varint(number << 3), varint(value)]);
}

function varint(value: number): Buffer {
  const out: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push((rest % 128) | 128);
  out.push(rest);
  return Buffer.from(out);
}

const FLOAT = 1;

/** ValueInfoProto of a float matrix; a text names a dimension that is free. */
function valueInfo(name: string, dims: readonly (number | string)[]): Buffer {
  const shape = dims.map((dim) =>
    field(1, typeof dim === "number" ? integer(1, dim) : field(2, dim)),
  );
  const tensor = Buffer.concat([integer(1, FLOAT), field(2, Buffer.concat(shape))]);
  return Buffer.concat([field(1, name), field(2, field(1, tensor))]);
}

/** A model of d [M,n] = a [M,k] · Wᵀ for W [n,k] row-major: Gemm with its second operand turned. */
export function matMulModel(weights: Float32Array, n: number, k: number): Uint8Array {
  const raw = new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength);
  const initializer = [
    integer(1, n),
    integer(1, k),
    integer(2, FLOAT),
    field(8, "w"),
    field(9, raw),
  ];
  const turned = Buffer.concat([field(1, "transB"), integer(3, 1), integer(20, 2)]);
  const node = [field(1, "a"), field(1, "w"), field(2, "d"), field(4, "Gemm"), field(5, turned)];
  const graph = Buffer.concat([
    field(1, Buffer.concat(node)),
    field(2, "product"),
    field(5, Buffer.concat(initializer)),
    field(11, valueInfo("a", ["M", k])),
    field(12, valueInfo("d", ["M", n])),
  ]);
  const opset = Buffer.concat([field(1, ""), integer(2, 17)]);
  return Buffer.concat([integer(1, 8), field(7, graph), field(8, opset)]);
}
