// The house rules, over all files as they are; and each rule over a file that breaks it, so that a
// rule which sees nothing is noticed.

import { describe, expect, it } from "vitest";
import { readSourceFiles, type SourceFile } from "../source-files.ts";
import { formatViolation, rules } from "../tidy.ts";

const file = (path: string, text: string): SourceFile => ({ path, lines: text.split("\n") });

/** Everything that all rules say about these files, as `path:line message`. */
function complaints(...files: readonly SourceFile[]): string[] {
  return rules.flatMap((rule) => rule.check(files).map(formatViolation));
}

const header = "// What this is for.\n";
const manifest = (name: string, dependencies: Record<string, string> = {}): SourceFile =>
  file(`packages/${name}/package.json`, JSON.stringify({ dependencies }, null, 2));
const body = (lines: number, indent = "  "): string => `${indent}x();\n`.repeat(lines);

describe("this repository keeps to", () => {
  const files = readSourceFiles();

  it("enough files for the rules to mean anything", () => {
    const packages = files.filter(({ path }) => /^packages\/[^/]+\/package.json$/.test(path));
    expect(packages.length).toBeGreaterThan(10);
    expect(files.length).toBeGreaterThan(150);
  });

  it.each(rules)("$name", ({ check }) => {
    expect(check(files).map(formatViolation)).toEqual([]);
  });
});

describe("a violation is seen:", () => {
  const src = "packages/tensor/src/x.ts";

  it("wide lines, counted in characters, except addresses and tables", () => {
    const text = [
      `// ${"µ".repeat(97)}`,
      `// ${"µ".repeat(98)}`,
      `// https://x.org/${"a".repeat(99)}`,
    ];
    const table = `//  | ${"a ".repeat(60)}|`;
    expect(complaints(file(src, [...text, table].join("\n")))).toEqual([
      `${src}:2 101 columns; at most 100`,
    ]);
  });

  it("long files", () => {
    expect(complaints(file(src, `${header}${"\n".repeat(600)}`))).toEqual([
      `${src}:1 601 lines; at most 600`,
    ]);
  });

  it.each([
    ["a function", "export function f(a: number): void {\n", "}\n"],
    ["a function of many parameters", "function f(\n  a: number,\n): Promise<void> {\n", "}\n"],
    ["a function of one destructured parameter", "function F({\n  a,\n}: Props): VNode {\n", "}\n"],
    ["an arrow", "const f = async (): Promise<void> => {\n", "};\n"],
    ["a method", "class A {\n  async *#m<T>(a: T): AsyncIterable<T> {\n", "  }\n}\n"],
    ["a getter", "class A {\n  get size(): number {\n", "  }\n}\n"],
    ["a test", 'it("works", async () => {\n', "});\n"],
  ])("%s of more than 70 lines", (_, opening, closing) => {
    const first = opening.startsWith("class") ? 2 : 1;
    const around = opening.trimEnd().split("\n").length - first + 2;
    const indent = first === 2 ? "    " : "  ";
    const fits = header + opening + body(70 - around, indent) + closing;
    expect(complaints(file(src, fits))).toEqual([]);
    const long = header + opening + body(71 - around, indent) + closing;
    expect(complaints(file(src, long))).toEqual([
      expect.stringContaining(`${src}:${first + 1} a function of 71 lines; at most 70: `),
    ]);
  });

  it("long C functions, but no long groups of tests, classes or branches", () => {
    const c = `${header}static void f(int a) {\n${body(80)}}\n`;
    expect(complaints(file("packages/jit/kernels/x.c", c))).toHaveLength(1);
    const groups = `${header}describe("x", () => {\n${body(80)}});\nclass A {\n${body(80)}}\n`;
    expect(complaints(file("packages/jit/test/x.ts", groups))).toEqual([]);
    expect(complaints(file(src, `${header}if (a) {\n${body(80)}}\n`))).toEqual([]);
  });

  it("a source file without a header", () => {
    const message = "no comment that says what the file is for";
    expect(complaints(file(src, "export {};\n"))).toEqual([`${src}:1 ${message}`]);
    expect(complaints(file("packages/jit/kernels/x.c", "#include <a.h>\n"))).toHaveLength(1);
    expect(complaints(file("packages/cli/src/main.ts", `#!/usr/bin/env node\n${header}`))).toEqual(
      [],
    );
  });

  it("leftovers of debugging", () => {
    for (const line of [`// TO${"DO"}: later`, "  debugger;", '  console.log("here");']) {
      expect(complaints(file(src, header + line)), line).toHaveLength(1);
    }
    const test = file("packages/tensor/test/x.test.ts", `it.${"only"}('x', f);`);
    expect(complaints(test)).toEqual([expect.stringContaining("hides the other tests")]);
    expect(complaints(file("packages/cli/src/x.ts", `${header}  console.log(1);`))).toEqual([]);
  });

  it("paths of one machine, wherever they stand", () => {
    for (const path of ["work/main", "home/ada", "root/x", "Users/ada"]) {
      expect(complaints(file("README.md", `see /${path}`)), path).toHaveLength(1);
    }
    expect(complaints(file("README.md", "https://x.org/home/ada, src/work/main"))).toEqual([]);
  });

  it("environment variables without our prefix or without a table", () => {
    const text = `${header}const { env } = process;\nenv.FOO;\nenv["OPEN_INFRA_X"];\nenv.CC;\n`;
    expect(complaints(file(src, text))).toEqual([
      `${src}:3 FOO lacks the prefix OPEN_INFRA_`,
      `${src}:4 OPEN_INFRA_X is in no README's table`,
    ]);
    const readme = file("packages/tensor/README.md", "| `OPEN_INFRA_X` | what it does |");
    expect(complaints(file(src, `${header}env.OPEN_INFRA_X;\n`), readme)).toEqual([]);
    const original = file(src, `${header}env.SP_X;\nenv.SP_Y;\n`);
    const prose = file("packages/tensor/README.md", "`SP_X` goes before arguments.");
    expect(complaints(original, prose)).toEqual([`${src}:3 SP_Y is in no README's table`]);
  });

  it("a package without a README", () => {
    expect(complaints(manifest("tensor"))).toEqual([
      "packages/tensor/package.json:1 a package without README.md",
    ]);
  });
});

describe("an import is refused", () => {
  const jit = "packages/jit/src/x.ts";
  const readme = (name: string): SourceFile => file(`packages/${name}/README.md`, "");
  const importing = (path: string, ...lines: readonly string[]): SourceFile =>
    file(path, header + lines.join("\n"));

  it.each([
    ["upward", jit, 'import { a } from "@open-infra/model";', "jit imports model, which is not in"],
    ["upward, as a type", jit, 'import type { A } from "@open-infra/cli";', "not in a lower layer"],
    ["upward, in a test", "packages/jit/test/x.ts", 'import "@open-infra/model";', "lower layer"],
    ["upward, when needed", jit, '  const a = await import("@open-infra/cli");', "lower layer"],
    ["upward, re-exported", jit, 'export * from "@open-infra/engine";', "lower layer"],
    ["over many lines", jit, 'import {\n  a,\n} from "@open-infra/server";', "lower layer"],
    ["sideways", "packages/deep-gemm/src/x.ts", 'import "@open-infra/flash-mla";', "lower layer"],
    [
      "by an island",
      "packages/tensor/src/x.ts",
      'import "@open-infra/profile";',
      "nothing of ours",
    ],
    ["of itself", jit, 'import { a } from "@open-infra/jit";', "jit imports itself by name"],
    ["of helpers of tests", jit, 'import "@open-infra/testing";', "the helpers of tests"],
    ["of a package nobody placed", jit, 'import "@open-infra/nowhere";', "has no layer"],
    ["out of the package", jit, 'import { a } from "../../tensor/src/a.ts";', "leaves the package"],
  ])("%s", (_, path, text, message) => {
    expect(complaints(importing(path, text))).toEqual([expect.stringContaining(message)]);
  });

  it("that is not declared, or declared and not made", () => {
    const files = [
      importing(jit, 'import koffi from "koffi";', 'import { a } from "@open-infra/tensor";'),
      importing("packages/jit/test/x.ts", 'import { it } from "vitest";'),
      readme("jit"),
    ];
    expect(complaints(...files, manifest("jit", { koffi: "^3", zod: "^4" }))).toEqual([
      `${jit}:3 @open-infra/tensor is not in dependencies of packages/jit/package.json`,
      "packages/jit/package.json:4 zod is declared, not used",
    ]);
    const all = { koffi: "^3", "@open-infra/tensor": "0.1.0" };
    expect(complaints(...files, manifest("jit", all))).toEqual([]);
  });

  it("that closes a circle of files, unless only types go round", () => {
    const a = importing("packages/jit/src/a.ts", 'import { b } from "./b.ts";');
    const b = importing(
      "packages/jit/src/b.ts",
      "import {\n  c,\n} from './c.ts';".replaceAll("'", '"'),
    );
    const c = importing("packages/jit/src/c.ts", 'import { a } from "./a.ts";');
    const path = (name: string): string => `packages/jit/src/${name}.ts`;
    expect(complaints(a, b, c)).toEqual([
      `${path("a")}:1 a circle: ${["a", "b", "c", "a"].map(path).join(" → ")}`,
    ]);
    const typeOnly = importing(path("c"), 'import type { A } from "./a.ts";');
    expect(complaints(a, b, typeOnly)).toEqual([]);
  });
});
