// The text that is hashed and compiled, its key, and the options read at the edge: nothing native.

import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { type Compiler, compilerIdentity, splitCommand } from "../src/compiler.ts";
import { CacheError, CompileError, JitOptionError } from "../src/errors.ts";
import { chooseIsa, featuresOf, wantsTiles } from "../src/isa.ts";
import { allIsaFlags } from "../src/isa-flags.ts";
import { kernelKey } from "../src/key.ts";
import { readJitOptions } from "../src/options.ts";
import { kernelUrl } from "../src/paths.ts";
import { kernelSource } from "../src/source.ts";
import { tempDir, writeFile } from "./helpers.ts";

const compiler: Compiler = {
  path: "/opt/some/cc",
  words: [],
  version: "gcc version 12.2.0 (Debian 12.2.0-14)",
  target: "x86_64-linux-gnu",
  isaFlags: new Set(allIsaFlags("x64")),
};

function spec(source: URL) {
  return { name: "t", source, entry: "t", constants: { N: 4 }, params: { x: "ptr" } } as const;
}

function keyOf(source: string, version = compiler.version): string {
  const identity = compilerIdentity({ ...compiler, version });
  return kernelKey({ compiler: identity, flags: ["-O3"], source });
}

describe("kernel source", () => {
  it("is the same from two installations, and knows none of their paths", () => {
    const texts = [tempDir(), join(tempDir(), "deeper", "still")].map((dir) => {
      const include = join(dir, "jit", "include");
      cpSync(fileURLToPath(kernelUrl("include")), include, { recursive: true });
      mkdirSync(join(dir, "own"), { recursive: true });
      writeFile(join(dir, "own"), "own.h", `#include "oi_kernel.h"\nstatic int two = 2;\n`);
      const text =
        `#include "own.h"\n#include "oi_simd.h"\n` + "const char *t(void) { return __FILE__; }\n";
      const url = writeFile(join(dir, "own"), "t.c", text);
      const source = kernelSource(spec(url), include);
      expect(source).not.toContain(dir);
      return source;
    });
    expect(texts[0]).toBe(texts[1]);
    expect(texts[0]).toContain("vf_exp");
  });

  it("changes with any header it uses, and with no other", () => {
    const dir = tempDir();
    writeFile(dir, "inner.h", "#pragma once\n#define INNER 1\n");
    writeFile(dir, "outer.h", '#pragma once\n#include "inner.h"\n');
    writeFile(dir, "unused.h", "#define UNUSED 1\n");
    const url = writeFile(dir, "t.c", '#include "outer.h"\nint t(void) { return INNER; }\n');
    const before = keyOf(kernelSource(spec(url)));
    writeFile(dir, "unused.h", "#define UNUSED 2\n");
    expect(keyOf(kernelSource(spec(url)))).toBe(before);
    writeFile(dir, "inner.h", "#pragma once\n#define INNER 2\n");
    expect(keyOf(kernelSource(spec(url)))).not.toBe(before);
  });

  it("keeps the meaning of includes", () => {
    const dir = tempDir();
    writeFile(dir, "a.h", '#pragma once\n#include "b.h"\nint a;\n');
    writeFile(dir, "b.h", '#pragma once\n#include "a.h"\nint b;\n');
    writeFile(dir, "twice.h", "FIELD\n");
    const text = [
      '#include "a.h"',
      '#include "b.h"',
      '/* #include "gone.h"',
      '#include "gone.h" */',
      "#if 0",
      '#include "gone.h"',
      "#endif",
      '#include "twice.h"',
      '#include "twice.h"',
      "int end;",
    ];
    const source = kernelSource(spec(writeFile(dir, "t.c", text.join("\n"))));
    expect(source.match(/FIELD/g)).toHaveLength(2);
    expect(source).toContain('#line 9 "t.c"');
    expect(source).not.toContain("pragma once");
    expect(source).toContain("typedef struct {\n  void *x;\n} params_t;");
    expect(source).toContain("#define N 4");
  });

  it("refuses what it cannot follow", () => {
    const dir = tempDir();
    const macro = writeFile(dir, "macro.c", "#define H <x.h>\n#include H\n");
    expect(() => kernelSource(spec(macro))).toThrow(/macro.c:2: an include must name its file/);
    writeFile(dir, "self.h", '#include "self.h"\n');
    const self = writeFile(dir, "self.c", '#include "self.h"\n');
    expect(() => kernelSource(spec(self))).toThrow(CompileError);
    expect(() => kernelSource(spec(pathToFileURL(join(dir, "none.c"))))).toThrow(/none\.c/);
  });
});

describe("key", () => {
  it("depends on source, flags, and who the compiler is, not where", () => {
    const key = keyOf("int x;");
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    expect(keyOf("int y;")).not.toBe(key);
    expect(keyOf("int x;", "gcc version 13.1.0")).not.toBe(key);
    const identity = (change: Partial<Compiler>): string =>
      compilerIdentity({ ...compiler, ...change });
    expect(identity({ path: "/elsewhere/gcc" })).toBe(compilerIdentity(compiler));
    expect(identity({ path: "ccache", words: ["/usr/bin/gcc"] })).toBe(compilerIdentity(compiler));
    expect(identity({ words: ["-fno-plt"] })).not.toBe(compilerIdentity(compiler));
    expect(identity({ target: "aarch64-linux-gnu" })).not.toBe(compilerIdentity(compiler));
  });
});

describe("instruction set", () => {
  const all = featuresOf(0b011111);

  it("is the best that processor and compiler share", () => {
    expect(chooseIsa(compiler, all).isa).toBe("avx512bf16");
    expect(chooseIsa(compiler, featuresOf(0b000011)).isa).toBe("avx512");
    expect(chooseIsa(compiler, featuresOf(0b000001)).isa).toBe("avx2");
    expect(chooseIsa(compiler, featuresOf(0)).isa).toBe("scalar");
    expect(chooseIsa(compiler, featuresOf(0b1011111)).isa).toBe("amx");
    expect(chooseIsa(compiler, featuresOf(0b1011011)).isa).toBe("avx512");
    const before = (flag: string) => ({
      ...compiler,
      isaFlags: new Set(allIsaFlags("x64").slice(0, allIsaFlags("x64").indexOf(flag))),
    });
    expect(chooseIsa(before("-mamx-tile"), featuresOf(0b1011111)).isa).toBe("avx512bf16");
    const old = before("-mavx512bf16");
    expect(chooseIsa(old, all).isa).toBe("avx512");
    expect(chooseIsa(old, all).flags).not.toContain("-mavx512vbmi");
    expect(chooseIsa({ ...compiler, isaFlags: new Set() }, all).flags).toEqual([
      "-DOI_ISA_SCALAR=1",
    ]);
    expect(chooseIsa(compiler, featuresOf(0b100000)).isa).toBe("neon");
  });

  it("adds VBMI and VNNI where both have them", () => {
    expect(chooseIsa(compiler, all).flags).toContain("-mavx512vbmi");
    expect(chooseIsa(compiler, featuresOf(0b000011)).flags).not.toContain("-mavx512vbmi");
  });

  it("refuses what is missing and says what there is", () => {
    const choose = (isa: string) => () => chooseIsa(compiler, featuresOf(0b000011), isa);
    expect(choose("avx512bf16")).toThrow(/processor does not have; expected avx512, avx2, scalar/);
    expect(choose("amx")).toThrow(/'amx', which this processor does not have/);
    expect(choose("sse9")).toThrow(JitOptionError);
    const emulated = choose("avx512bf16-emulated")();
    expect(emulated.isa).toBe("avx512bf16");
    expect(emulated.flags).toContain("-DOI_EMULATE_BF16DOT=1");
    expect(emulated.flags).toContain("-DOI_ISA_AVX512BF16=1");
    expect(emulated.flags).not.toContain("-mavx512bf16");
    const tiles = choose("amx-emulated")();
    expect(tiles.isa).toBe("amx");
    expect(tiles.flags).toContain("-DOI_EMULATE_TILES=1");
    expect(tiles.flags).toContain("-DOI_ISA_AMX=1");
    expect(tiles.flags).not.toContain("-mamx-tile");
  });

  it("says when the system does not grant matrix tiles", () => {
    const refused = featuresOf(0b10011111);
    expect(chooseIsa(compiler, refused)).toMatchObject({
      isa: "avx512bf16",
      note: "the system does not grant amx",
    });
    expect(() => chooseIsa(compiler, refused, "amx")).toThrow(/its system does not grant/);
    expect(chooseIsa(compiler, refused, "avx512bf16").note).toBeUndefined();
    expect(wantsTiles(undefined) && wantsTiles("amx")).toBe(true);
    expect(wantsTiles("avx2") || wantsTiles("amx-emulated")).toBe(false);
  });
});

describe("options", () => {
  it("come from the environment", () => {
    const read = readJitOptions({
      CC: " ccache gcc ",
      OPEN_INFRA_JIT_CACHE_DIR: "/c",
      OPEN_INFRA_JIT_READONLY_CACHE_DIRS: "/a::/b",
      OPEN_INFRA_JIT_ISA: "avx2",
      OPEN_INFRA_JIT_DEBUG: "1",
      OPEN_INFRA_JIT_DUMP_ASM: "0",
    });
    expect(read).toMatchObject({
      cc: "ccache gcc",
      cacheDir: "/c",
      readonlyCacheDirs: ["/a", "/b"],
      isa: "avx2",
      debug: true,
      printCommand: false,
      dumpAsm: false,
    });
  });

  it("keep kernels where the system keeps caches", () => {
    expect(readJitOptions({ XDG_CACHE_HOME: "/x", HOME: "/h" }).cacheDir).toBe("/x/open-infra/jit");
    const inHome = readJitOptions({ XDG_CACHE_HOME: "relative", HOME: "/h" }).cacheDir;
    expect(inHome).toBe("/h/.cache/open-infra/jit");
  });

  it("refuse a switch that is neither on nor off", () => {
    expect(() => readJitOptions({ HOME: "/h", OPEN_INFRA_JIT_DEBUG: "maybe" })).toThrow(
      /OPEN_INFRA_JIT_DEBUG is 'maybe'; expected 0 or 1/,
    );
  });

  it("split a compiler command like a shell", () => {
    expect(splitCommand(`ccache  "/opt/my gcc/bin/gcc" -DX='a b'`)).toEqual([
      "ccache",
      "/opt/my gcc/bin/gcc",
      "-DX=a b",
    ]);
  });

  it("name the variable in every complaint about the cache", () => {
    expect(new CacheError("/d", "is full").message).toContain("OPEN_INFRA_JIT_CACHE_DIR");
  });
});
