// How a user's function gets to an executor: by the module that exports it, or, if it needs nothing
// from outside, as its text. Either way the reference says enough to tell one version of the
// function from another.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { PlanError } from "../errors.ts";
import { freeVariables } from "./free-variables.ts";

/** A function as plain data. */
export type FunctionRef =
  | { readonly kind: "text"; readonly text: string }
  | {
      readonly kind: "module";
      readonly url: string;
      readonly export: string;
      /** Given after the row or batch; JSON. */
      readonly args: readonly unknown[];
      /** Hash of the module and of the files it imports by relative paths. */
      readonly version: string;
    };

/** A function found by its module; made by {@link fromModule}. */
export class ModuleFunction {
  readonly ref: FunctionRef;

  constructor(ref: FunctionRef) {
    this.ref = ref;
  }
}

/**
 * Names an exported function, for functions that use imports or constants of their module.
 *
 * @param url `new URL("./steps.ts", import.meta.url)`
 * @param args Given to the function after its first argument; JSON.
 */
export function fromModule(
  url: URL,
  name = "default",
  args: readonly unknown[] = [],
): ModuleFunction {
  return new ModuleFunction({
    kind: "module",
    url: url.href,
    export: name,
    args,
    version: moduleVersion(fileURLToPath(url)),
  });
}

/**
 * A function of the user's as a reference.
 *
 * @param source `file:line` of the call, for the message.
 * @throws PlanError that names a captured variable and its line
 */
export function functionRef(
  fn: ModuleFunction | ((...args: never[]) => unknown),
  source: string,
): FunctionRef {
  if (fn instanceof ModuleFunction) return fn.ref;
  const text = fn.toString();
  let captured: ReturnType<typeof freeVariables>;
  try {
    captured = freeVariables(text);
  } catch (cause) {
    throw new PlanError(
      `${source}: this function cannot be sent to an executor (a method or native code); ` +
        "write an arrow function, or export it and use fromModule",
      { cause },
    );
  }
  const [first] = captured;
  if (first !== undefined) {
    const line = text.split("\n")[first.line - 1]?.trim() ?? "";
    throw new PlanError(
      `${source}: the function uses '${first.name}' from outside itself (its line ${first.line}: ` +
        `${line}); executors do not have it. Pass it in through a column, or export the function ` +
        "from a module and use fromModule(url, name, args)",
    );
  }
  return { kind: "text", text };
}

/** The function itself, in an executor. */
export async function loadFunction(ref: FunctionRef): Promise<(...args: unknown[]) => unknown> {
  if (ref.kind === "text") {
    return new Function(`"use strict"; return (${ref.text}\n);`)() as (
      ...args: unknown[]
    ) => unknown;
  }
  const module = (await import(ref.url)) as Record<string, unknown>;
  const fn = module[ref.export];
  if (typeof fn !== "function") {
    throw new PlanError(`${ref.url} exports no function ${ref.export}`);
  }
  return (...args) => (fn as (...args: unknown[]) => unknown)(...args, ...ref.args);
}

/** A hash over a file and what it imports by relative paths. */
function moduleVersion(file: string): string {
  const hash = createHash("sha256");
  const seen = new Set<string>();
  const visit = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch (cause) {
      throw new PlanError(`cannot read the module ${pathToFileURL(path).href}`, { cause });
    }
    hash.update(text);
    for (const match of text.matchAll(/(?:from|import)\s*\(?\s*["'](\.{1,2}\/[^"']+)["']/g)) {
      visit(resolve(dirname(path), match[1] as string));
    }
  };
  visit(file);
  return hash.digest("hex").slice(0, 32);
}
