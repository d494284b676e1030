// Random pipelines over the DataFrame API, each beside the same steps as tables in one DuckDB. The
// reference is written out by hand for every step: it shares no text builder with the package, and
// knows of partitions only what their numbers say.

import type { DuckDBConnection } from "@duckdb/node-api";
import type { Random } from "@open-infra/testing";
import type { DataFrame, Session } from "../../src/index.ts";
import type { Source } from "./sources.ts";

/** Which partition a row must be in: its column `__data_partition__` says so. */
interface Placed {
  readonly count: number;
  /** What the number must be equal to; of a hash, the formula of the reference. */
  readonly formula: string | undefined;
  /** The columns it was cut by, changed since or not. */
  readonly keys: readonly string[];
}

/** A frame and its twin. */
export interface State {
  readonly frame: DataFrame;
  /** The reference's table with the same rows. */
  readonly table: string;
  readonly columns: readonly string[];
  /** Known as long as nothing since has moved rows or dropped the number. */
  readonly placed: Placed | undefined;
  /** Every row differs from every other one by `id`. */
  readonly unique: boolean;
  readonly text: string;
  /** Whether it can be cut by rows. */
  readonly rows: boolean;
}

/** What the last step promises besides the rows. */
export type Promised =
  | { readonly kind: "rows" }
  /** As many of the rows as there are, but not more than that. */
  | { readonly kind: "some"; readonly count: number }
  /** In each partition, and over all in their order with `global`. */
  | { readonly kind: "order"; readonly by: string; readonly global: boolean };

/** A finished pipeline. */
export interface Pipeline extends State {
  readonly promised: Promised;
}

const number = "__data_partition__";

/** Makes states; tables of the reference are numbered. */
export class Generator {
  readonly #random: Random;
  readonly #session: Session;
  readonly #sources: readonly Source[];
  readonly #reference: DuckDBConnection;
  /** Frames so far, to be used again beside or under later ones. */
  readonly #past: State[] = [];
  #tables = 0;

  constructor(
    random: Random,
    session: Session,
    sources: readonly Source[],
    reference: DuckDBConnection,
  ) {
    this.#random = random;
    this.#session = session;
    this.#sources = sources;
    this.#reference = reference;
  }

  async pipeline(): Promise<Pipeline> {
    let state = await this.#source();
    for (let steps = this.#random.int(1, 8); steps > 0; steps--) {
      state = await this.#step(state);
      this.#past.push(state);
    }
    return await this.#last(state);
  }

  async #source(): Promise<State> {
    const source = this.#random.pick(this.#sources);
    const frame = await source.read(this.#session);
    const { columns, table, rows } = source;
    return { frame, table, columns, placed: undefined, unique: true, text: source.name, rows };
  }

  /** A state whose reference is a new table. */
  async #next(before: State, query: string, change: Partial<State>, what: string): Promise<State> {
    const table = `r${this.#tables++}`;
    await this.#reference.run(`CREATE OR REPLACE TEMP TABLE ${table} AS ${query}`);
    return { ...before, rows: true, ...change, table, text: `${before.text} → ${what}` };
  }

  async #step(state: State): Promise<State> {
    const steps: ((state: State) => Promise<State>)[] = [
      (s) => this.#cutBy(s),
      (s) => this.#cutBy(s),
      (s) => this.#hash(s),
      (s) => this.#hash(s),
      (s) => this.#filter(s),
      (s) => this.#filter(s),
      (s) => this.#map(s),
      (s) => this.#map(s),
      (s) => this.#unnest(s),
      (s) => this.#sort(s),
      (s) => this.#group(s),
      (s) => this.#perPartition(s),
      (s) => this.#functions(s),
      (s) => this.#join(s),
      (s) => this.#distinct(s),
      (s) => this.#again(s),
    ];
    return await this.#random.pick(steps)(state);
  }

  /** Cuts by files, rows or an expression, or a shuffle. */
  async #cutBy(s: State): Promise<State> {
    const n = this.#random.int(1, 7);
    const kind = this.#random.int(0, 4);
    if (kind === 2) {
      const expression = `abs(id) % ${n}`;
      const frame = s.frame.repartition(n, { by: expression });
      return await this.#numbered(s, frame, n, expression, ["id"], `by ${expression}`);
    }
    if (kind === 3) {
      const others = s.columns.filter((name) => name !== number);
      const query = `SELECT ${others.join(", ")} FROM ${s.table}`;
      const change = { frame: s.frame.randomShuffle(), columns: others, placed: undefined };
      return await this.#next(s, query, change, "shuffle");
    }
    const byRows = kind === 1 && s.rows;
    const frame = s.frame.repartition(n, { byRows });
    const change = { frame, placed: undefined, rows: s.rows };
    const what = byRows ? `${n} by rows` : `${n} by files`;
    return await this.#next(s, `SELECT * FROM ${s.table}`, change, what);
  }

  /** Now and then by the keys that it is cut by already; then often with a condition. */
  async #hash(s: State): Promise<State> {
    const cut = await this.#hashed(s);
    const more = this.#random.int(0, 6);
    if (more === 0) return await this.#hashed(await this.#filter(cut));
    if (more === 1 && s.unique) return await this.#firstOfEach(cut);
    return more < 4 ? await this.#filter(cut) : cut;
  }

  async #hashed(s: State): Promise<State> {
    const able = s.columns.filter((name) => !["s", "l", number].includes(name));
    const again = s.placed !== undefined && this.#random.int(0, 2) === 0;
    const before = again ? s.placed?.keys.every((key) => able.includes(key)) : false;
    const keys = before ? (s.placed?.keys ?? []) : this.#some(able, this.#random.int(1, 4));
    const n = before ? (s.placed?.count ?? 1) : this.#random.int(1, 7);
    const formula = `hash(concat_ws('##', ${keys.join(", ")})) % ${n}`;
    const frame = s.frame.repartition(n, { hashBy: keys });
    return await this.#numbered(s, frame, n, formula, keys, `${n} by hash of ${keys.join(" ")}`);
  }

  async #numbered(
    s: State,
    frame: DataFrame,
    count: number,
    formula: string,
    keys: readonly string[],
    what: string,
  ): Promise<State> {
    const others = s.columns.filter((name) => name !== number);
    const query = `SELECT ${others.join(", ")}, (${formula})::BIGINT AS ${number} FROM ${s.table}`;
    const placed = { count, formula, keys };
    return await this.#next(s, query, { frame, columns: [...others, number], placed }, what);
  }

  async #filter(s: State): Promise<State> {
    const conditions = [
      "id % 3 <> 1",
      ...(s.columns.includes("d") ? ["d > 50.5", "d IS NULL OR d < 100"] : []),
      ...(s.columns.includes("k") ? ["k IN (1, 2, 4)", "k IS NOT DISTINCT FROM 3"] : []),
      ...(s.columns.includes("name") ? ["name LIKE 'n%'", "name <> '{zero} it''s'"] : []),
      ...(s.columns.includes("s") ? ["s.x > 10", "s IS NOT NULL AND s.y = 'y1'"] : []),
      ...(s.columns.includes("l") ? ["len(l) > 1", "list_contains(l, 'l01')"] : []),
      ...(s.columns.includes(number) ? [`${number} > 0`] : []),
      `id IN (SELECT max(id) FROM range(3) t(id))`,
      "false",
    ];
    // The last ones leave little over, so they come rarely.
    const few = this.#random.int(0, 12) === 0;
    const condition = this.#random.pick(few ? conditions.slice(-2) : conditions.slice(0, -2));
    const query = `SELECT * FROM ${s.table} WHERE ${condition}`;
    const options = this.#random.int(0, 6) === 0 ? { cpus: 1 } : {};
    const change = { frame: s.frame.filter(condition, options) };
    return await this.#next(s, query, change, `filter ${condition}`);
  }

  async #map(s: State): Promise<State> {
    const kept = s.columns.filter((name) => name === "id" || this.#random.int(0, 3) > 0);
    const text: Readonly<Record<string, string>> = {
      id: "id + 1 AS id",
      d: "d * 2 AS d",
      name: "upper(name) AS name",
      k: "coalesce(k, 9) AS k",
    };
    const list = kept.map((name) => (this.#random.int(0, 4) === 0 ? text[name] : name) ?? name);
    const changed = list.some((item, i) => item !== kept[i]);
    const query = `SELECT ${list.join(", ")} FROM ${s.table}`;
    const frame =
      this.#random.int(0, 3) === 0
        ? this.#session.partialSql(`SELECT ${list.join(", ")} FROM {0} AS x -- all`, s.frame)
        : s.frame.map(list.join(", "));
    const whole = !changed && (s.placed?.keys.every((key) => kept.includes(key)) ?? true);
    // A changed column may be what the number was made of; the number itself stays.
    const placed =
      kept.includes(number) && s.placed
        ? { ...s.placed, ...(!whole && { formula: undefined }) }
        : undefined;
    return await this.#next(s, query, { frame, columns: kept, placed }, `map ${list.join(", ")}`);
  }

  async #unnest(s: State): Promise<State> {
    const list = s.columns.includes("l") ? "coalesce(l, ['none'])" : "['p', 'q']";
    const sql = `id, unnest(${list}) AS name`;
    const change = {
      frame: s.frame.map(sql),
      columns: ["id", "name"],
      placed: undefined,
      unique: false,
    };
    return await this.#next(s, `SELECT ${sql} FROM ${s.table}`, change, "unnest");
  }

  async #sort(s: State): Promise<State> {
    const by = this.#random.pick(["id DESC", "id % 10, id", ...s.columns.filter((c) => c === "d")]);
    const frame = s.frame.partialSort(by);
    return await this.#next(s, `SELECT * FROM ${s.table}`, { frame }, `partial sort ${by}`);
  }

  async #group(s: State): Promise<State> {
    const able = s.columns.filter((name) => ["k", "name", "b"].includes(name));
    if (able.length === 0) return s;
    const keys = this.#some(able, this.#random.int(1, 3));
    const all: Readonly<Record<string, string>> = {
      n: "count(*)",
      id: "sum(id)::BIGINT",
      low: "min(id)",
      high: "max(id % 17)",
      odd: "count(*) FILTER (id % 2 = 1)",
      some_odd: "bool_or(id % 5 = 0)",
      ...(s.columns.includes("d") && {
        d: "sum(d)",
        given: "count(d)",
        mean: "avg(d)",
        top: "max(d)",
      }),
      ...(s.columns.includes("name") && !keys.includes("name") && { name: "min(name)" }),
    };
    const exact = this.#random.int(0, 2) === 0;
    const chosen = [
      "id",
      ...this.#some(
        // Half of the time only what can be summed in any order.
        Object.keys(all).filter((name) => name !== "id" && !(exact && /^(d|mean)$/.test(name))),
        3,
      ),
    ];
    if (this.#random.int(0, 2) === 0) chosen.shift();
    const plain = chosen.length === 0 || !chosen.includes("id");
    const aggregates = Object.fromEntries(
      chosen.map((name) => [name, all[name] as string] as const),
    );
    if (plain) aggregates.id = "max(id)";
    const list = Object.entries(aggregates).map(([name, sql]) => `${sql} AS "${name}"`);
    const columns = [...keys, ...list].join(", ");
    const query = `SELECT ${columns} FROM ${s.table} GROUP BY ${keys.join(", ")}`;
    const change = {
      frame: s.frame.groupBy(...keys).agg(aggregates),
      columns: [...keys, ...Object.keys(aggregates)],
      placed: undefined,
      unique: false,
    };
    return await this.#next(s, query, change, `group by ${keys.join(" ")}: ${list.join(", ")}`);
  }

  /** An aggregate of each partition, where the partition is known. */
  async #perPartition(s: State): Promise<State> {
    if (s.placed === undefined) return await this.#hash(s);
    const { count } = s.placed;
    if (s.unique && this.#random.int(0, 2) === 0) return await this.#firstOfEach(s);
    const name = this.#random.pick(["max(id)", "count(*)", "min(id) + count(*)"]);
    const sql = `SELECT coalesce(${name}, -1)::BIGINT AS id, {${number}} AS k FROM {0}`;
    const counted = name.replace("count(*)", "count(id)");
    const query =
      `SELECT coalesce(${counted}, -1)::BIGINT AS id, p::INTEGER AS k ` +
      `FROM range(${count}) parts(p) LEFT JOIN ${s.table} ON ${number} = p GROUP BY p`;
    const change = {
      frame: this.#session.partialSql(sql, s.frame),
      columns: ["id", "k"],
      placed: undefined,
      unique: false,
    };
    return await this.#next(s, query, change, `per partition ${name}`);
  }

  /** A condition on the first rows of each partition. */
  async #firstOfEach(s: State): Promise<State> {
    const first = this.#random.int(1, 20);
    const odd = "id % 2 = 1";
    const inner = `(SELECT * FROM {0} ORDER BY id LIMIT ${first})`;
    const frame = this.#session.partialSql(`SELECT * FROM ${inner} WHERE ${odd}`, s.frame);
    const rank = `row_number() OVER (PARTITION BY ${number} ORDER BY id)`;
    const query = `SELECT * FROM (FROM ${s.table} QUALIFY ${rank} <= ${first}) WHERE ${odd}`;
    return await this.#next(s, query, { frame }, `odd ones of the first ${first}`);
  }

  /** Functions of rows and batches. */
  async #functions(s: State): Promise<State> {
    const kind = this.#random.int(0, 4);
    const schema = { id: "BIGINT", name: "VARCHAR" };
    if (kind === 0) {
      const frame = s.frame.filter((row: { id: number }) => row.id % 2 === 0);
      return await this.#next(
        s,
        `SELECT * FROM ${s.table} WHERE id % 2 = 0`,
        { frame },
        "filter by a function",
      );
    }
    const change = { columns: ["id", "name"], placed: undefined, unique: false };
    if (kind === 1) {
      const frame = s.frame.map((row: { id: number }) => ({ id: row.id * 2, name: `ü${row.id}` }), {
        schema,
      });
      const query = `SELECT id * 2 AS id, 'ü' || id AS name FROM ${s.table}`;
      return await this.#next(s, query, { ...change, frame }, "map by a function");
    }
    if (kind === 2) {
      const frame = s.frame.flatMap(
        (row: { id: number }) =>
          row.id % 3 === 0
            ? []
            : [
                { id: row.id, name: null },
                { id: -row.id, name: "m" },
              ],
        { schema },
      );
      const query =
        `SELECT id, NULL::VARCHAR AS name FROM ${s.table} WHERE id % 3 <> 0 ` +
        `UNION ALL SELECT -id, 'm' FROM ${s.table} WHERE id % 3 <> 0`;
      return await this.#next(s, query, { ...change, frame }, "flat map by a function");
    }
    const placed = s.placed;
    if (placed === undefined) return await this.#hash(s);
    const frame = s.frame.mapBatches(
      (rows: readonly { id: number }[]) => [
        {
          id: rows.reduce((sum, row) => sum + row.id, 0),
          name: Object.keys(rows[0] ?? {}).join(),
        },
      ],
      { schema },
    );
    const query =
      `SELECT sum(id)::BIGINT AS id, '${s.columns.join()}' AS name ` +
      `FROM ${s.table} GROUP BY ${number}`;
    return await this.#next(s, query, { ...change, frame }, "a batch a partition");
  }

  async #join(s: State): Promise<State> {
    const other = this.#random.int(0, 2) === 0 ? this.#earlier() : await this.#source();
    if (other === undefined) return s;
    const right = await this.#next(
      other,
      `SELECT id, count(*) AS n FROM ${other.table} GROUP BY id`,
      { frame: other.frame.groupBy("id").count("n"), columns: ["id", "n"] },
      "counted",
    );
    const how = this.#random.pick(["inner", "left", "right", "full", "semi", "anti"] as const);
    const columns = s.columns.filter((name) => name !== number && name !== "n");
    const left = s.frame.map(columns.join(", "));
    const list = how === "semi" || how === "anti" ? columns : [...columns, "n"];
    const query =
      `SELECT ${list.join(", ")} FROM (SELECT ${columns.join(", ")} FROM ${s.table}) ` +
      `${how.toUpperCase()} JOIN ${right.table} USING (id)`;
    const frame = left.join(right.frame, { on: "id", how }).map(list.join(", "));
    const change = { frame, columns: list, placed: undefined, unique: false };
    return await this.#next(s, query, change, `${how} join (${right.text})`);
  }

  async #distinct(s: State): Promise<State> {
    const columns = s.columns.filter((name) => name !== number && !["s", "l"].includes(name));
    const kept = [
      "id",
      ...this.#some(
        columns.filter((name) => name !== "id"),
        2,
      ),
    ];
    const frame = await s.frame.map(kept.join(", ")).distinct();
    const query = `SELECT DISTINCT ${kept.join(", ")} FROM ${s.table}`;
    const change = { frame, columns: kept, placed: undefined };
    return await this.#next(s, query, change, `distinct ${kept.join(", ")}`);
  }

  /** The same rows by a plan that has a node of before twice, or that runs a part of it first. */
  async #again(s: State): Promise<State> {
    if (this.#random.int(0, 3) === 0) {
      await s.frame.count();
      return { ...s, text: `${s.text} → computed` };
    }
    const sql = "SELECT a.* FROM {0} a WHERE a.id IN (SELECT b.id FROM {1} b)";
    const frame = this.#session.partialSql(sql, s.frame, s.frame.filter("id % 4 > 0"));
    const query = `SELECT * FROM ${s.table} WHERE id % 4 > 0`;
    // Only with equal ids together is a row's twin in its partition; here it is the row itself.
    return await this.#next(s, query, { frame }, "beside itself");
  }

  async #last(s: State): Promise<Pipeline> {
    const kind = this.#random.int(0, 8);
    if (kind === 0) {
      const count = this.#random.int(0, 40);
      return { ...s, frame: s.frame.limit(count), promised: { kind: "some", count } };
    }
    if (kind === 1) {
      const count = this.#random.int(0, 9);
      const kept = s.columns.filter((name) => name !== "id");
      const list = ["id", ...this.#some(kept, 2)];
      const next = await this.#next(
        s,
        `SELECT ${list.join(", ")} FROM ${s.table}`,
        { frame: s.frame.limit(count).map(list.join(", ")), columns: list },
        `limit ${count}, then map`,
      );
      return { ...next, promised: { kind: "some", count }, placed: undefined };
    }
    if (kind === 2) {
      const by = this.#random.pick(["id", "id DESC", "id % 7, id DESC"]);
      const frame = s.frame.sort(by, { partitions: this.#random.int(1, 5) });
      const columns = s.columns.filter((name) => name !== number);
      const sorted = frame.map(columns.join(", "));
      const query = `SELECT ${columns.join(", ")} FROM ${s.table}`;
      const change = { frame: sorted, columns, placed: undefined };
      const next = await this.#next(s, query, change, `sort ${by}`);
      return { ...next, promised: { kind: "order", by, global: true } };
    }
    if (kind === 3) {
      const frame = s.frame.partialSort("id DESC");
      return { ...s, frame, promised: { kind: "order", by: "id DESC", global: false } };
    }
    return { ...s, promised: { kind: "rows" } };
  }

  #earlier(): State | undefined {
    return this.#past.length === 0 ? undefined : this.#random.pick(this.#past);
  }

  #some<T>(items: readonly T[], count: number): T[] {
    const left = [...items];
    const taken: T[] = [];
    while (taken.length < count && left.length > 0) {
      taken.push(...left.splice(this.#random.int(0, left.length), 1));
    }
    return taken;
  }
}
