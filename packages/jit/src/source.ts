// Makes one self-contained C file of a kernel: constants and parameter block first, then the
// kernel's source with every project header written into it. So the text that is hashed is the text
// that is compiled, no path of this installation reaches the compiler, and a cache entry can be
// compiled again by hand. System headers (<…>) stay; they belong to the compiler's identity.

import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { CompileError } from "./errors.ts";
import type { KernelConstants, ParamLayout } from "./operation.ts";
import { kernelUrl } from "./paths.ts";

/** What one compiled kernel is made from. */
export interface KernelSpec {
  /** For messages and listings: the operation and its constants. */
  readonly name: string;
  readonly source: URL;
  readonly entry: string;
  readonly constants: KernelConstants;
  readonly params: ParamLayout;
  /** A directory of headers of other packages, searched after the source's own. */
  readonly headers?: URL;
}

const cTypes = { ptr: "void *", i64: "int64_t ", f64: "double " } as const;

/**
 * The complete text of a kernel. `include` is where headers are looked for that do not lie beside
 * the file that names them.
 *
 * @throws CompileError if a source cannot be read or is circular.
 */
export function kernelSource(
  spec: KernelSpec,
  include: string = fileURLToPath(kernelUrl("include")),
): string {
  const defines = Object.entries(spec.constants).map(
    ([name, value]) => `#define ${name} ${value}\n`,
  );
  const fields = Object.entries(spec.params).map(([name, kind]) => `  ${cTypes[kind]}${name};\n`);
  const params = fields.length === 0 ? "" : `typedef struct {\n${fields.join("")}} params_t;\n`;
  const dirs = spec.headers === undefined ? [include] : [fileURLToPath(spec.headers), include];
  const body = new Amalgamation(spec.name, dirs).expand(fileURLToPath(spec.source), []);
  return `#include <stdint.h>\n${defines.join("")}${params}${body}`;
}

class Amalgamation {
  readonly #kernel: string;
  readonly #include: readonly string[];
  readonly #names = new Map<string, string>();

  constructor(kernel: string, include: readonly string[]) {
    this.#kernel = kernel;
    this.#include = include;
  }

  /** The text of `file` with its quoted includes expanded; `stack` is the files around it. */
  expand(file: string, stack: readonly string[]): string {
    const text = this.#read(file);
    const once = /^[ \t]*#[ \t]*pragma[ \t]+once\b.*$/m;
    if (stack.includes(file)) {
      if (once.test(text)) return "";
      throw new CompileError(this.#kernel, `${basename(file)} includes itself`, "");
    }
    const name = basename(file);
    let comment = false;
    const lines = text.split("\n").map((line, index) => {
      const inside = comment;
      comment = endsInComment(line, comment);
      if (inside) return line;
      if (once.test(line)) return "";
      const quoted = /^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<(oi_[^>]+)>)/.exec(line);
      if (quoted === null) {
        if (/^[ \t]*#[ \t]*include[ \t]+[A-Za-z_]/.test(line)) {
          const problem = `${name}:${index + 1}: an include must name its file, not a macro`;
          throw new CompileError(this.#kernel, problem, "");
        }
        return line;
      }
      const found = this.#resolve((quoted[1] ?? quoted[2]) as string, file, stack);
      // A header that is not there may stand in a branch that is not compiled; the compiler will
      // say.
      if (found === undefined) return line;
      const inner = this.expand(found, [...stack, file]);
      return `#line 1 "${basename(found)}"\n${inner}\n#line ${index + 2} "${name}"`;
    });
    const expanded = lines.join("\n");
    if (stack.length === 0) return `#line 1 "${name}"\n${expanded}\n`;
    if (!once.test(text)) return expanded;
    // Not dropped the second time but guarded: the first one may stand in a branch not compiled.
    const guard = this.#guard(file);
    return `#ifndef ${guard}\n#define ${guard}\n#line 1 "${name}"\n${expanded}\n#endif`;
  }

  #guard(file: string): string {
    let guard = this.#names.get(file);
    if (guard === undefined) {
      guard = `OI_ONCE_${this.#names.size}`;
      this.#names.set(file, guard);
    }
    return guard;
  }

  #resolve(name: string, from: string, stack: readonly string[]): string | undefined {
    const dirs = [dirname(from), ...stack.map((file) => dirname(file)).reverse()];
    return [...dirs, ...this.#include]
      .map((dir) => join(dir, name))
      .find((path) => existsSync(path));
  }

  #read(file: string): string {
    try {
      return readFileSync(file, "utf8");
    } catch (error) {
      throw new CompileError(this.#kernel, `cannot read ${file}: ${(error as Error).message}`, "");
    }
  }
}

/** Whether a block comment is open at the end of a line. Quotes hide neither `//` nor `/*` here. */
function endsInComment(line: string, open: boolean): boolean {
  let at = 0;
  for (;;) {
    if (open) {
      const end = line.indexOf("*/", at);
      if (end < 0) return true;
      at = end + 2;
      open = false;
    } else {
      const start = line.indexOf("/*", at);
      const rest = line.indexOf("//", at);
      if (start < 0 || (rest >= 0 && rest < start)) return false;
      at = start + 2;
      open = true;
    }
  }
}
