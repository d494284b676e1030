// Kernel names a person can read: without return type, template arguments, parameters and
// namespaces. Two kernels of one template share a short name; results always carry the full one.

const brackets: Readonly<Record<string, string>> = { "<": ">", "(": ")", "{": "}", "[": "]" };

/** PyTorch names these after their shape; what they compute is a template argument. */
const shapedKernel = /(?:elementwise|reduce)_kernel\w*$/;
const functor = /(\w+_kernel_cuda)\b|(\w*Functor(?:OnSelf)?(?:_\w+)?|\w+Ops?)\s*</g;

/**
 * The function's own name: `internode::dispatch` of
 * `void deep_ep::internode::dispatch<false, 8>(int4*)`. One level of namespace stays, because the
 * name alone often says little (`fp8_gemm::GemmKernel`). CUTLASS's `device_kernel<T>` gives way to
 * its `T`; PyTorch's elementwise kernels are followed by what they compute.
 */
export function shortName(name: string): string {
  if (!/[(<]/.test(name)) return name.replace(/^void /, "");
  const text = name
    .replaceAll("(anonymous namespace)::", "")
    .replaceAll("->", "")
    .replace(/operator\(\)\s*/g, "operator ")
    .replace(/^(?:void )?(?:cutlass::)?(?:device_kernel|Kernel2?)</, "");
  const head = withoutBrackets(text).trim();
  const parts = head.slice(head.lastIndexOf(" ") + 1).split("::");
  const short = parts.slice(-2).join("::");
  if (short === "") return name;
  if (!shapedKernel.test(short)) return short;
  const found = [...text.matchAll(functor)];
  const computes = found.find((match) => match[1])?.[1] ?? found.at(-1)?.[2];
  return computes === undefined ? short : `${parts.at(-1)} ${computes}`;
}

/** Drops what is in brackets; a parameter list, or the end of a list around it, ends the name. */
function withoutBrackets(text: string): string {
  const open: string[] = [];
  let out = "";
  for (const letter of text) {
    const close = brackets[letter];
    const outside = open.length === 0;
    if (outside && (letter === "," || letter === ">")) break;
    if (outside && letter === "(" && out.trim() !== "") break;
    if (close !== undefined) open.push(close);
    else if (letter === open.at(-1)) open.pop();
    else if (outside) out += letter;
  }
  return out;
}
