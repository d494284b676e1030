// Colours of work: every class of kernels falls into one of a few kinds, and a kind has a token in
// styles/tokens.css. What no class covers gets one of the calm tints by its name. Warm colours are
// communication, cool ones computation, as everywhere in the console.

import type { KernelClass } from "@open-infra/profile/analyze";

/** A colour index of the timeline, with the token it is drawn in. */
export interface WorkKind {
  /** Custom property without its dashes. */
  readonly token: string;
  /** For the legend. */
  readonly label: string;
}

/** Kinds by colour index. The first tints are for spans of no class. */
export const workKinds: readonly WorkKind[] = [
  { token: "work-plain-1", label: "Host" },
  { token: "work-plain-2", label: "Host" },
  { token: "work-plain-3", label: "Host" },
  { token: "work-plain-4", label: "Host" },
  { token: "work-annotation", label: "Annotation" },
  { token: "work-runtime", label: "Runtime call" },
  { token: "work-gemm", label: "GEMM" },
  { token: "work-attention", label: "Attention" },
  { token: "work-cast", label: "Cast" },
  { token: "work-permute", label: "Permute" },
  { token: "work-layer", label: "Layer" },
  { token: "work-compute", label: "Other computation" },
  { token: "work-forward", label: "Forward" },
  { token: "work-backward", label: "Backward" },
  { token: "work-weight", label: "Weight gradient" },
  { token: "work-overlapped", label: "Forward + backward" },
  { token: "work-dispatch", label: "Dispatch" },
  { token: "work-combine", label: "Combine" },
  { token: "work-notify", label: "Notify" },
  { token: "work-collective", label: "Collective" },
  { token: "work-transfer", label: "Transfer" },
  { token: "work-memory", label: "Memory" },
];

/** Tints at the head of `workKinds`. */
export const PLAIN_TINTS = 4;

const kindOfToken = new Map(workKinds.map(({ token }, index) => [token.slice(5), index]));

function kind(name: string): number {
  return kindOfToken.get(name) ?? 0;
}

/** The first pattern that a class name matches decides. */
const classKinds: readonly (readonly [RegExp, string])[] = [
  [/^ep_dispatch/, "dispatch"],
  [/^ep_combine/, "combine"],
  [/^ep_/, "notify"],
  [/^(nccl|nvshmem)/, "collective"],
  [/transfer/, "transfer"],
  [/^pipeline_overlapped/, "overlapped"],
  [/^pipeline_forward/, "forward"],
  [/^pipeline_backward_weight/, "weight"],
  [/^pipeline_backward/, "backward"],
  [/^attention/, "attention"],
  [/gemm|^cublas/, "gemm"],
  [/cast|quant|transpose/, "cast"],
  [/^permute/, "permute"],
  [/^(norm|swiglu|rope|router|embedding)/, "layer"],
];

/** Colour index of a class; a user's own classes go by their group. */
export function kindOfClass({ name, group }: KernelClass): number {
  const found = classKinds.find(([pattern]) => pattern.test(name));
  if (found !== undefined) return kind(found[1]);
  if (group === "communication") return kind("collective");
  return kind(group === "memory" ? "memory" : "compute");
}

/** Colour index of a span that is no work: by category where that says something, else by name. */
export function kindOfSpan(category: string, name: string): number {
  if (/annotation/i.test(category)) return kind("annotation");
  if (/runtime|driver/i.test(category)) return kind("runtime");
  return tintOf(name);
}

/** One of the calm tints; equal names have equal tints. Numbers in a name do not count. */
export function tintOf(name: string): number {
  let hash = 2166136261;
  for (const letter of name.replace(/\d+/g, "")) {
    hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 16777619);
  }
  return (hash >>> 8) % PLAIN_TINTS;
}
