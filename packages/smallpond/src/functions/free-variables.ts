// What a function uses from outside itself. A function shipped as text can bring nothing along, so
// such a variable is an error, best said where the function is written.

import { type Node, parse } from "acorn";

/** A name that a function uses but does not declare. */
export interface FreeVariable {
  readonly name: string;
  /** In the function's text, from 1. */
  readonly line: number;
}

type AnyNode = Node & Record<string, unknown>;

/** What every executor has: JavaScript's own, and Node's that hold no state of a script. */
const globals = new Set([...Object.getOwnPropertyNames(globalThis), "undefined", "arguments"]);

/**
 * The free variables of a function's text, each once.
 *
 * @throws SyntaxError for what is no function (a method or native code)
 */
export function freeVariables(text: string): FreeVariable[] {
  const program = parse(`(${text}\n)`, {
    ecmaVersion: "latest",
    locations: true,
  }) as unknown as AnyNode;
  const declared = new Set<string>();
  collectDeclared(program, declared);
  const free = new Map<string, FreeVariable>();
  visitReferences(program, (name, line) => {
    if (declared.has(name) || globals.has(name) || free.has(name)) return;
    free.set(name, { name, line });
  });
  return [...free.values()];
}

function children(node: AnyNode): AnyNode[] {
  const found: AnyNode[] = [];
  for (const value of Object.values(node)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (typeof (item as AnyNode | null)?.type === "string") found.push(item as AnyNode);
    }
  }
  return found;
}

/** Names bound by a pattern. */
function namesOf(pattern: AnyNode, into: Set<string>): void {
  if (pattern.type === "Identifier") into.add(pattern.name as string);
  else if (pattern.type === "AssignmentPattern") namesOf(pattern.left as AnyNode, into);
  else if (pattern.type === "RestElement") namesOf(pattern.argument as AnyNode, into);
  else if (pattern.type === "ArrayPattern") {
    for (const item of pattern.elements as (AnyNode | null)[]) if (item) namesOf(item, into);
  } else if (pattern.type === "ObjectPattern") {
    for (const property of pattern.properties as AnyNode[]) {
      namesOf((property.type === "RestElement" ? property : property.value) as AnyNode, into);
    }
  }
}

/** Every name declared anywhere inside; scopes are not told apart. */
function collectDeclared(node: AnyNode, into: Set<string>): void {
  if (node.type === "VariableDeclarator") namesOf(node.id as AnyNode, into);
  else if (/Function|Class/.test(node.type) && node.type !== "ClassBody") {
    if (node.id) namesOf(node.id as AnyNode, into);
    for (const parameter of (node.params as AnyNode[] | undefined) ?? []) namesOf(parameter, into);
  } else if (node.type === "CatchClause" && node.param) namesOf(node.param as AnyNode, into);
  for (const child of children(node)) collectDeclared(child, into);
}

function visitReferences(node: AnyNode, take: (name: string, line: number) => void): void {
  if (node.type === "Identifier") {
    take(node.name as string, node.loc?.start.line ?? 1);
    return;
  }
  const skip = new Set<unknown>();
  if (node.type === "MemberExpression" && !node.computed) skip.add(node.property);
  if (/^(Property|MethodDefinition|PropertyDefinition)$/.test(node.type) && !node.computed) {
    // A shorthand property's key is its value too, and that is a reference.
    if (!node.shorthand) skip.add(node.key);
  }
  if (/^(LabeledStatement|BreakStatement|ContinueStatement)$/.test(node.type)) skip.add(node.label);
  if (node.type === "MetaProperty") return;
  for (const child of children(node)) if (!skip.has(child)) visitReferences(child, take);
}
