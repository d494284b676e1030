// Who may import whom: packages only downward through the layers of ARCHITECTURE.md and only what
// their package.json declares, files inside a package without circles. Reads import statements as
// text, which formatted code makes easy.

import { posix } from "node:path";
import { isShipped, packageOf, type SourceFile, type Violation } from "./source-files.ts";

/** Packages by layer, lowest first; a package imports only from lower layers. */
const layers: readonly (readonly string[])[] = [
  ["errors", "testing", "demo-model"],
  ["profile", "eplb", "tensor"],
  ["jit"],
  ["ranks"],
  ["deep-gemm", "flash-mla", "deep-ep", "hfreduce", "smallpond"],
  ["dualpipe"],
  ["model"],
  ["engine"],
  ["server", "console"],
  ["cli"],
];

/** Packages that import nothing of ours but the errors, whatever layer they are in. */
const islands: ReadonlySet<string> = new Set([
  "errors",
  "tensor",
  "profile",
  "eplb",
  "testing",
  "demo-model",
]);

const scope = "@open-infra/";

interface Import {
  readonly path: string;
  readonly line: number;
  readonly specifier: string;
  readonly typeOnly: boolean;
}

/** The imports and re-exports of a file, those of types and dynamic ones included. */
function importsOf({ path, lines }: SourceFile): Import[] {
  const found: Import[] = [];
  let typeOnly = false;
  lines.forEach((line, i) => {
    if (/^(import|export)\b/.test(line)) typeOnly = /^(import|export) type\b/.test(line);
    const match =
      /^(?:import|export|\}).* from "([^"]+)"/.exec(line) ??
      /^import "([^"]+)"/.exec(line) ??
      /\bimport\("([^"]+)"\)/.exec(line);
    const specifier = match?.[1];
    if (specifier !== undefined) found.push({ path, line: i + 1, specifier, typeOnly });
  });
  return found;
}

/**
 * The package a specifier names: `@scope/name/sub` → `@scope/name`; undefined for files and Node.
 */
function packageName(specifier: string): string | undefined {
  if (/^(\.|node:|[a-z]+:)/.test(specifier)) return undefined;
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

const layerOf = (name: string): number => layers.findIndex((layer) => layer.includes(name));

/** What is wrong with one import by `own`, by direction alone. */
function directionError(own: string, { path, specifier }: Import): string | undefined {
  if (specifier.startsWith(".")) {
    const target = posix.join(posix.dirname(path), specifier);
    const inside = target.startsWith(`packages/${own}/`);
    return inside ? undefined : `${specifier} leaves the package; import it by its name`;
  }
  if (!specifier.startsWith(scope)) return undefined;
  const other = specifier.slice(scope.length).split("/")[0] as string;
  if (other === own) return isShipped(path) ? `${own} imports itself by name` : undefined;
  if (layerOf(other) < 0) return `${specifier} has no layer; add it to scripts/tidy-imports.ts`;
  if (other === "testing") {
    return isShipped(path) ? "shipped code imports the helpers of tests" : undefined;
  }
  if (isShipped(path) && islands.has(own) && other !== "errors")
    return `${own} imports nothing of ours, but ${specifier}`;
  return layerOf(other) < layerOf(own)
    ? undefined
    : `${own} imports ${other}, which is not in a lower layer`;
}

type Manifest = Partial<Record<"dependencies" | "devDependencies", Record<string, string>>>;

/** What shipped code imports must be declared, and what is declared must be used. */
function manifestErrors(
  manifest: SourceFile,
  shipped: readonly SourceFile[],
  imports: readonly Import[],
): Violation[] {
  const { dependencies = {} } = JSON.parse(manifest.lines.join("\n")) as Manifest;
  const declared = new Set(Object.keys(dependencies));
  const found: Violation[] = [];
  for (const { path, line, specifier } of imports) {
    const name = packageName(specifier);
    if (name === undefined || declared.has(name)) continue;
    found.push({ path, line, message: `${name} is not in dependencies of ${manifest.path}` });
  }
  for (const name of declared) {
    // Any mention counts, for packages found by path (`import.meta.resolve`).
    const used = shipped.some(({ lines }) =>
      lines.some((line) => line.includes(`"${name}"`) || line.includes(`"${name}/`)),
    );
    const line = manifest.lines.findIndex((text) => text.includes(`"${name}"`)) + 1;
    if (!used) found.push({ path: manifest.path, line, message: `${name} is declared, not used` });
  }
  return found;
}

/** A circle of files that import each other at run time, if `graph` has one. */
function findCircle(graph: ReadonlyMap<string, readonly string[]>): readonly string[] | undefined {
  const done = new Set<string>();
  const visit = (path: string, above: readonly string[]): readonly string[] | undefined => {
    const at = above.indexOf(path);
    if (at >= 0) return [...above.slice(at), path];
    if (done.has(path)) return undefined;
    for (const next of graph.get(path) ?? []) {
      const circle = visit(next, [...above, path]);
      if (circle !== undefined) return circle;
    }
    done.add(path);
    return undefined;
  };
  for (const path of graph.keys()) {
    const circle = visit(path, []);
    if (circle !== undefined) return circle;
  }
  return undefined;
}

function circleErrors(files: readonly SourceFile[]): Violation[] {
  const graph = new Map<string, string[]>();
  for (const file of files) {
    const targets = importsOf(file)
      .filter(({ typeOnly, specifier }) => !typeOnly && specifier.startsWith("."))
      .map(({ specifier }) => posix.join(posix.dirname(file.path), specifier));
    graph.set(file.path, targets);
  }
  const circle = findCircle(graph);
  if (circle === undefined) return [];
  return [{ path: circle[0] as string, line: 1, message: `a circle: ${circle.join(" → ")}` }];
}

/**
 * Every import that runs the wrong way, is undeclared, or closes a circle; every unused dependency.
 */
export function importViolations(files: readonly SourceFile[]): Violation[] {
  const found: Violation[] = [];
  const packages = Map.groupBy(files, ({ path }) => packageOf(path));
  for (const [own, members] of packages) {
    if (own === undefined) continue;
    // The web app is bundled, so its dependencies are those of the build, at the root.
    const code = members.filter(({ path }) => /\.tsx?$/.test(path));
    for (const file of code) {
      for (const one of importsOf(file)) {
        const message = directionError(own, one);
        if (message !== undefined) found.push({ path: one.path, line: one.line, message });
      }
    }
    const shipped = code.filter(({ path }) => isShipped(path));
    const manifest = members.find(({ path }) => path === `packages/${own}/package.json`);
    if (manifest !== undefined) {
      found.push(...manifestErrors(manifest, shipped, shipped.flatMap(importsOf)));
    }
    found.push(...circleErrors(shipped));
  }
  return found;
}
