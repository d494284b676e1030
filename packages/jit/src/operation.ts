// The seam of this package: what an operation is, and how one backend's kernel for it is described.
// Operations live in the packages above (deep-gemm, flash-mla, model); backends live here. Nothing
// in this file assumes C: a CUDA or WGSL kernel is described in the same terms.

import type { Tensor } from "@open-infra/tensor";

/** Compile-time constants of one specialisation; they become `#define`s (C, CUDA) or overrides. */
export type KernelConstants = Readonly<Record<string, string | number>>;

/** The run-time parameters of a kernel, in order. Every field takes eight bytes. */
export type ParamLayout = Readonly<Record<string, "ptr" | "i64" | "f64">>;

/**
 * A value for each field of a layout: a tensor (its first element) or null for `ptr`, else a
 * number.
 */
export type ParamValues<L extends ParamLayout> = {
  readonly [K in keyof L]: L[K] extends "ptr" ? Tensor | null : number;
};

/** What a kernel may know of the machine it is specialised for. */
export interface Target {
  /** For C: `amx`, `avx512bf16`, `avx512`, `avx2`, `neon` or `scalar`. */
  readonly isa: string;
  /** Threads a launch may use. */
  readonly threads: number;
}

/** A kernel in source form. One source serves many specialisations. */
export interface Kernel<A, L extends ParamLayout = ParamLayout, P = unknown> {
  readonly language: "c" | "cuda" | "wgsl";
  readonly source: URL;
  /** The exported function. */
  readonly entry: string;
  readonly params: L;
  /** Constants for these arguments; equal constants share one compiled kernel. */
  constants(args: A, target: Target): KernelConstants;
  /** How these arguments are to be computed, once a launch, for the functions below. */
  plan?(args: A, target: Target): P;
  pack(args: A, target: Target, plan: P): ParamValues<L>;
  /** Threads worth using for these arguments; the device caps it. @default all */
  threads?(args: A, target: Target, plan: P): number;
  /** Scratch memory each thread gets, 64-byte aligned, uninitialised. @default 0 */
  scratchBytes?(args: A, target: Target, plan: P): number;
}

/** A kernel whose parameter layout has been checked against `pack`; see {@link defineKernel}. */
export type AnyKernel<A> = Kernel<A>;

/** Ties `params` and `pack` together, so that a missing or misspelt field does not compile. */
export function defineKernel<A, const L extends ParamLayout, P = undefined>(
  kernel: Kernel<A, L, P>,
): AnyKernel<A> {
  return kernel as unknown as AnyKernel<A>;
}

/**
 * One operation: its argument rule, its obvious implementation, and a kernel per backend.
 * `reference` is the oracle of every test: float64 accumulation, no cleverness.
 */
export interface Operation<A> {
  readonly name: string;
  /** Throws a typed error that names the argument; runs before every launch on every backend. */
  check(args: A): void;
  reference(args: A): void;
  readonly kernels: Readonly<Partial<Record<BackendName, AnyKernel<A>>>>;
  /** Why this backend cannot run these (already checked) arguments, or undefined if it can. */
  unsupported?(args: A, backend: BackendName): string | undefined;
  /** Bytes and flops for traces and benches. */
  work?(args: A): { readonly flops: number; readonly bytes: number };
}

export type BackendName = "reference" | "cpu" | "cuda" | "webgpu";
