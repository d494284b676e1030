// Finds keys that occur twice in one JSON object. `JSON.parse` keeps the last silently, which for a
// file of weights means that two readers may disagree on what it holds. It does not parse: the text
// must be valid JSON already.

/** The first key that one object of `text` holds twice, or undefined. `text` must be valid JSON. */
export function findDuplicateKey(text: string): string | undefined {
  // One entry per open bracket: the keys seen so far of an object, undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  const next = /["{}[\]]/g;
  for (let match = next.exec(text); match !== null; match = next.exec(text)) {
    const at = match.index;
    switch (match[0]) {
      case "{":
        open.push(new Set());
        break;
      case "[":
        open.push(undefined);
        break;
      case "}":
      case "]":
        open.pop();
        break;
      default: {
        const end = endOfString(text, at);
        next.lastIndex = end;
        const keys = open.at(-1);
        if (keys === undefined || !colonFollows(text, end)) break;
        const key = JSON.parse(text.slice(at, end)) as string;
        if (keys.has(key)) return key;
        keys.add(key);
      }
    }
  }
  return undefined;
}

/** Index after the closing quote of the string that opens at `at`. */
function endOfString(text: string, at: number): number {
  let i = at + 1;
  while (i < text.length && text.charCodeAt(i) !== 0x22) i += text.charCodeAt(i) === 0x5c ? 2 : 1;
  return i + 1;
}

function colonFollows(text: string, from: number): boolean {
  let i = from;
  while (text.charCodeAt(i) <= 0x20) i++;
  return text.charCodeAt(i) === 0x3a;
}
