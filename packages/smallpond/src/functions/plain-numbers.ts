// Whole numbers as JavaScript has them: DuckDB's BIGINT comes as a bigint, which mixes with no
// number. What a person or a function is given has a number wherever one holds the value exactly.

type Row = Record<string, unknown>;

/**
 * Rows whose bigints are numbers where those are exact (up to 2^53 - 1 in size); larger ones stay.
 * Done in place.
 *
 * @param types DuckDB's types of the columns, by name; only those with wide integers are looked at.
 */
export function plainNumbers(types: Readonly<Record<string, string>>): (row: Row) => Row {
  const wide = Object.keys(types).filter((name) => /BIGINT|HUGEINT|BIGNUM/.test(types[name] ?? ""));
  return (row) => {
    for (const name of wide) row[name] = plain(row[name]);
    return row;
  };
}

const most = BigInt(Number.MAX_SAFE_INTEGER);

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return value <= most && value >= -most ? Number(value) : value;
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(plain);
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
}
