// Run by tests as a process of its own: loads a kernel through the cache that the environment names
// and prints what it returns. argv: folder of number.c, its constant.

import { pathToFileURL } from "node:url";
import { KernelCache } from "../src/cache.ts";
import { type Compiler, findCompiler } from "../src/compiler.ts";
import { scalarTarget } from "../src/isa.ts";
import { readJitOptions } from "../src/options.ts";

const [, , dir, value] = process.argv as [string, string, string, string];
const cache = new KernelCache(findCompiler() as Compiler, scalarTarget, readJitOptions());
const { library } = cache.load({
  name: "number",
  source: pathToFileURL(`${dir}/number.c`),
  entry: "number",
  constants: { VALUE: Number(value) },
  params: {},
});
console.log(library.func("number")(new Int32Array(2)));
