// The fields of a page's form as texts, and the same in an address, so that a link brings the same
// view back. Only what differs from the defaults stands in the address.

/** Texts of fields by name. */
export type FormValues<Name extends string> = Readonly<Record<Name, string>>;

/** Longest text of one field that an address carries. */
const ADDRESS_TEXT_MAX = 4000;

/** `?name=text&…` of what differs from the defaults; "" if nothing does. */
export function queryOf<Name extends string>(
  values: FormValues<Name>,
  defaults: FormValues<Name>,
): string {
  const query = new URLSearchParams();
  for (const name of Object.keys(defaults) as Name[]) {
    const text = values[name];
    if (text !== defaults[name] && text.length <= ADDRESS_TEXT_MAX) query.set(name, text);
  }
  // A slash or a comma needs no escape in a hash, and links are read by people.
  const text = query.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
  return text === "" ? "" : `?${text}`;
}

/** The values an address asks for: the defaults where it says nothing, unknown names left out. */
export function valuesFrom<Name extends string>(
  rest: string,
  defaults: FormValues<Name>,
): FormValues<Name> {
  const start = rest.indexOf("?");
  const query = new URLSearchParams(start < 0 ? "" : rest.slice(start + 1));
  const values: Record<Name, string> = { ...defaults };
  for (const name of Object.keys(defaults) as Name[]) {
    const text = query.get(name);
    if (text !== null) values[name] = text;
  }
  return values;
}

/** A field's number; NaN where it is none, for the package to say what it expected. */
export function numberOf(text: string): number {
  const plain = text.trim().replaceAll(",", "");
  return plain === "" ? Number.NaN : Number(plain);
}

/** The value of a field that may be left empty. */
export function optionalNumber(text: string): number | undefined {
  return text.trim() === "" ? undefined : numberOf(text);
}

/** One of `allowed`, the first if the text is none of them: an old link must not break the page. */
export function choiceOf<T extends string>(text: string, allowed: readonly [T, ...T[]]): T {
  return allowed.find((value) => value === text) ?? allowed[0];
}
