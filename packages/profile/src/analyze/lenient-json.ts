// JSON.parse that also takes what profilers write beside JSON: NaN and Infinity (null here, as
// JSON.stringify would have written), and raw control characters in strings.

/** Strings first, so that words inside of them stay. */
const tokens = /"(?:[^"\\]|\\[\s\S])*"|-?\b(?:NaN|nan|Infinity|inf)\b/g;

/** Parses `text`. @throws SyntaxError if it is no JSON even so. */
export function parseLenient(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return JSON.parse(
      text.replaceAll(tokens, (token) =>
        token.startsWith('"')
          ? token.replaceAll(
              // biome-ignore lint/suspicious/noControlCharactersInRegex: they are looked for
              /[\u0000-\u001f]/g,
              (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
            )
          : "null",
      ),
    ) as unknown;
  }
}
