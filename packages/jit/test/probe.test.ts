// The limits that benches compare with. That a probe measures the machine and not a spilled
// register is read from the assembly of what is really run: in the measured loop every chain is one
// instruction (two where multiply and add are), and nothing moves or touches memory.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Tensor } from "@open-infra/tensor";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { Compiler } from "../src/compiler.ts";
import { CpuDevice } from "../src/cpu-device.ts";
import { JitOptionError, UnsupportedError } from "../src/errors.ts";
import { computeProbes, measureMachine } from "../src/probe.ts";
import { ReferenceDevice } from "../src/reference-device.ts";
import { found, needsCompiler, options, tempDir } from "./helpers.ts";

/** The instructions of a function's innermost loop that holds `instruction`. */
function loopWith(assembly: string, name: string, instruction: RegExp): string[] {
  const from = assembly.indexOf(`\n${name}:`);
  expect(from, name).toBeGreaterThan(0);
  const body = assembly.slice(from, assembly.indexOf(`.size\t${name}`, from)).split("\n");
  const at = body.findIndex((line) => instruction.test(line));
  expect(at, `${instruction} in ${name}`).toBeGreaterThan(0);
  let start = at;
  while (!/^\.L\d+:/.test(body[start] as string)) start--;
  const label = (body[start] as string).slice(0, -1);
  const end = body.findIndex((line, i) => i > at && new RegExp(`\\bj\\w+\\t${label}$`).test(line));
  expect(end, `the loop of ${name}`).toBeGreaterThan(at);
  return body.slice(start + 1, end).filter((line) => /^\t[a-z]/.test(line));
}

const loops = {
  avx512bf16: {
    f32: [/\tvfmadd\w+ps\t/, 24],
    bf16Dot: [/\tvdpbf16ps\t/, 24],
    int8Dot: [/\tvpdpbusd\t/, 24],
  },
  avx512: { f32: [/\tvfmadd\w+ps\t/, 24], int8Dot: [/\tvpdpbusd\t/, 24] },
  avx2: { f32: [/\tvfmadd\w+ps\t/, 12] },
  scalar: { f32: [/\t(mul|add)ps\t/, 24] },
} as const;

describe.skipIf(requirement("probes", needsCompiler))("probes", () => {
  for (const [isa, wanted] of Object.entries(loops)) {
    it.skipIf(process.arch !== "x64")(`stay in registers with ${isa}`, () => {
      const cacheDir = tempDir();
      let device: CpuDevice;
      try {
        const jit = options(cacheDir, { isa, dumpAsm: true });
        device = new CpuDevice({ compiler: found as Compiler, jit, threads: 1 });
      } catch (error) {
        expect(error).toBeInstanceOf(JitOptionError);
        requirement(`probes with ${isa}`, (error as Error).message, "optional");
        return;
      }
      const lines = Tensor.empty([8], "f64");
      for (const [kind, [instruction, count]] of Object.entries(wanted)) {
        const operation = computeProbes[kind as keyof typeof computeProbes];
        device.run(operation, { lines, rounds: 10, threads: 1 });
        if (lines.raw()[1] === 0) continue; // avx512 without VNNI
        const files = readdirSync(join(cacheDir, "asm"));
        const texts = files.map((file) => readFileSync(join(cacheDir, "asm", file), "utf8"));
        const text = texts.find((one) => one.includes(`\n${operation.name}:`)) as string;
        const loop = loopWith(text, operation.name, instruction);
        expect(loop.filter((line) => instruction.test(line))).toHaveLength(count);
        expect(loop.filter((line) => line.includes("(") || /\tv?mov/.test(line))).toEqual([]);
        expect(loop.length, loop.join("\n")).toBeLessThanOrEqual(count + 3);
      }
      device[Symbol.dispose]();
    });
  }

  it("measure the machine, one thread and all", () => {
    const jit = options(tempDir());
    using device = new CpuDevice({ compiler: found as Compiler, jit, threads: 2 });
    const limits = measureMachine(device, { readBytes: 4 << 20, runs: 2, milliseconds: 2 });
    expect(limits.readBytes).toBe(4 << 20);
    for (const name of ["f32", "bf16"] as const) {
      const [one, all] = [limits[`${name}GflopsPerThread`], limits[`${name}Gflops`]];
      expect(one, name).toBeGreaterThan(0.1);
      expect(all, name).toBeGreaterThan(0.1);
    }
    expect(limits.readGBsPerThread).toBeGreaterThan(0.1);
    expect(limits.readGBs).toBeGreaterThan(0.1);
    expect(limits.bf16Gflops).toBe(Math.max(limits.f32Gflops, limits.bf16DotGflops));
    expect(limits.bf16Instruction).toBe(limits.bf16DotGflops > limits.f32Gflops);
    expect(limits.bf16Unit).toBe(device.isa === "amx" ? "bf16Tiles" : "bf16");
    expect(limits.coreShare).toBeGreaterThan(0);
    expect(limits.coreShare).toBeLessThanOrEqual(1);
    for (const value of Object.values(limits.tiles ?? {})) expect(value).toBeGreaterThan(0.1);
    expect(() => measureMachine(new ReferenceDevice())).toThrow(UnsupportedError);
  });

  it("report no dot product where it is emulated or not there", () => {
    for (const isa of ["scalar", "avx512bf16-emulated"]) {
      const jit = options(tempDir(), { isa });
      let device: CpuDevice;
      try {
        device = new CpuDevice({ compiler: found as Compiler, jit, threads: 1 });
      } catch (error) {
        expect(error).toBeInstanceOf(JitOptionError);
        continue; // No AVX-512.
      }
      const limits = measureMachine(device, { readBytes: 1 << 20, runs: 1, milliseconds: 1 });
      expect(limits.bf16DotGflops).toBe(0);
      expect(limits.bf16Gflops).toBe(limits.f32Gflops);
      expect(limits.bf16Instruction).toBe(false);
      expect(limits.bf16Unit).toBe("bf16");
      device[Symbol.dispose]();
    }
  });
});
