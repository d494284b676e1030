// What a query does with the columns of its inputs, as DuckDB itself binds it: the inputs become
// empty tables of the same columns, every rewriting of DuckDB but the removal of unused columns is
// off, and the plan it explains says what is read and by which operators. So stars, COLUMNS(),
// lateral joins, correlated subqueries and macros need no understanding here; what does not bind
// (functions that only executors have) is not understood, and nothing is concluded of it.

import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import type { Schema } from "../../dataset/dataset.ts";
import { identifier, literal } from "../../dataset/sql-text.ts";
import { SessionClosedError } from "../../errors.ts";
import { fillTemplate, type TemplatePiece } from "../template.ts";
import { parseSyntax, type Statement } from "./syntax.ts";

/** What a query reads and does. */
export interface QueryUse {
  /** Of each input, the columns whose values matter to the columns asked for. */
  readonly needs: readonly ReadonlySet<string>[];
  /** Names of the physical operators, `FILTER`, `HASH_GROUP_BY`. */
  readonly operators: ReadonlySet<string>;
}

interface PlanStep {
  readonly name: string;
  readonly children: readonly PlanStep[];
  readonly extra_info: Readonly<Record<string, unknown>>;
}

/** Results kept for plans to come; more are forgotten from the start. */
const memory = 4096;

/** Asks a DuckDB of its own, opened at the first question. */
export class ColumnAnalysis {
  #opened: Promise<DuckDBConnection> | undefined;
  #instance: DuckDBInstance | undefined;
  #closed = false;
  #volatile: RegExp | undefined;
  readonly #tables = new Map<string, Promise<string | undefined>>();
  readonly #answers = new Map<string, Promise<unknown>>();

  /**
   * Columns and types of a query's result; undefined if it does not bind here, or has two columns
   * of one name.
   */
  async describe(
    query: readonly TemplatePiece[],
    inputs: readonly Schema[],
  ): Promise<Schema | undefined> {
    const text = await this.#text(query, inputs);
    return text === undefined ? undefined : await this.describeText(text);
  }

  /** The same of a query without placeholders. */
  describeText(text: string): Promise<Schema | undefined> {
    return this.#remember(`describe ${text}`, async (connection) => {
      const result = await connection.runAndReadAll(`DESCRIBE ${text}`);
      const columns = result.getRows().map((row) => [String(row[0]), String(row[1])] as const);
      const schema = Object.fromEntries(columns);
      return Object.keys(schema).length === columns.length ? schema : undefined;
    });
  }

  /**
   * What the named columns of a query's result need, all without `columns`; undefined if that is
   * not understood.
   */
  async use(
    query: readonly TemplatePiece[],
    inputs: readonly Schema[],
    columns?: readonly string[],
  ): Promise<QueryUse | undefined> {
    const text = await this.#text(query, inputs);
    // PIVOT finds its columns in the rows, of which there are none here.
    if (text === undefined || /\bpivot/i.test(text)) return undefined;
    const list = columns?.map(identifier).join(", ");
    const asked = columns === undefined ? text : `SELECT ${list || "1"} FROM (${text}\n)`;
    const steps = await this.#remember(`explain ${asked}`, async (connection) => {
      const result = await connection.runAndReadAll(`EXPLAIN (FORMAT json) ${asked}`);
      return JSON.parse(String(result.getRows()[0]?.at(-1))) as readonly PlanStep[];
    });
    return steps && this.#useOf(steps, inputs);
  }

  /** The syntax tree of a query; undefined if it is not one SELECT. */
  parse(text: string): Promise<Statement | undefined> {
    return this.#remember(`parse ${text}`, async (connection) => {
      const [row] = (
        await connection.runAndReadAll(`SELECT json_serialize_sql(${literal(text)}::VARCHAR)`)
      ).getRows();
      const parsed = parseSyntax(String(row?.[0])) as { statements?: readonly Statement[] };
      return parsed.statements?.length === 1 ? parsed.statements[0] : undefined;
    });
  }

  /** The text of a syntax tree. */
  print(statement: Statement): Promise<string | undefined> {
    const json = JSON.stringify({ error: false, statements: [statement] });
    return this.#remember(`print ${json}`, async (connection) => {
      const query = `SELECT json_deserialize_sql(${literal(json)}::JSON)`;
      return String((await connection.runAndReadAll(query)).getRows()[0]?.[0]);
    });
  }

  /**
   * Whether a text gives the same for the same rows whenever it runs: none of DuckDB's functions
   * that do not, and no sample. A column of such a name counts as one, to be safe.
   */
  async deterministic(text: string): Promise<boolean> {
    await this.#connection();
    return !(this.#volatile as RegExp).test(text);
  }

  /** Opens it beside whatever else is done now: 30 ms that the first plan need not wait for. */
  warm(): void {
    // Whoever asks will hear of a failure.
    this.#connection().catch(() => {});
  }

  close(): void {
    this.#closed = true;
    this.#instance?.closeSync();
    this.#instance = undefined;
  }

  #connection(): Promise<DuckDBConnection> {
    this.#opened ??= this.#open();
    return this.#opened;
  }

  async #open(): Promise<DuckDBConnection> {
    const instance = await DuckDBInstance.create(":memory:", { threads: "1" });
    if (this.#closed) {
      instance.closeSync();
      throw new SessionClosedError();
    }
    this.#instance = instance;
    const connection = await instance.connect();
    const names = async (query: string): Promise<string[]> =>
      (await connection.runAndReadAll(query)).getRows().map((row) => String(row[0]));
    const others = await names(
      "SELECT name FROM duckdb_optimizers() WHERE name <> 'unused_columns'",
    );
    await connection.run(`SET disabled_optimizers = ${literal(others.join(","))}`);
    const unstable = await names(
      "SELECT DISTINCT function_name FROM duckdb_functions() " +
        "WHERE stability <> 'CONSISTENT' AND regexp_full_match(function_name, '\\w+')",
    );
    const words = [...unstable, "sample", "tablesample", "current_\\w+", "localtime\\w*"];
    this.#volatile = new RegExp(`\\b(${words.join("|")})\\b`, "i");
    return connection;
  }

  async #remember<T>(
    key: string,
    ask: (connection: DuckDBConnection) => Promise<T>,
  ): Promise<T | undefined> {
    let answer = this.#answers.get(key) as Promise<T | undefined> | undefined;
    if (answer === undefined) {
      // A query that fails here fails in its task, with its own words.
      answer = this.#connection().then((connection) => ask(connection).catch(() => undefined));
      if (this.#answers.size >= memory) {
        this.#answers.delete(this.#answers.keys().next().value as string);
      }
      this.#answers.set(key, answer);
    }
    return await answer;
  }

  /** A query over the stand-ins of its inputs. */
  async #text(
    query: readonly TemplatePiece[],
    inputs: readonly Schema[],
  ): Promise<string | undefined> {
    const tables: string[] = [];
    for (const [i, schema] of inputs.entries()) {
      const table = await this.#table(i, schema);
      if (table === undefined) return undefined;
      tables.push(table);
    }
    const numbers = new Proxy({}, { get: () => 0 }) as Record<string, number>;
    return fillTemplate(query, tables, numbers);
  }

  /** An empty table for the input of a number, so that each input's reads can be told apart. */
  #table(input: number, schema: Schema): Promise<string | undefined> {
    const columns = Object.entries(schema).map(([name, type]) => `${identifier(name)} ${type}`);
    const key = `${input} ${columns.join(", ")}`;
    let table = this.#tables.get(key);
    if (table === undefined) {
      const name = `smallpond_${input}_${this.#tables.size}`;
      const create = `CREATE TEMP TABLE ${name} (${columns.join(", ")})`;
      // Types that only some task knows, or no columns: nothing is known of its users.
      table = this.#connection().then((connection) =>
        connection.run(create).then(
          () => name,
          () => undefined,
        ),
      );
      this.#tables.set(key, table);
    }
    return table;
  }

  #useOf(steps: readonly PlanStep[], inputs: readonly Schema[]): QueryUse | undefined {
    const needs = inputs.map(() => new Set<string>());
    const operators = new Set<string>();
    let understood = true;
    const visit = (step: PlanStep): void => {
      operators.add(step.name);
      const table = /smallpond_(\d+)_\d+"?$/.exec(String(step.extra_info.Table ?? ""));
      if (table !== null) {
        const input = Number(table[1]);
        const columns = readColumns(step.extra_info.Projections, inputs[input] as Schema);
        if (columns === undefined) understood = false;
        else for (const name of columns) needs[input]?.add(name);
      }
      step.children.forEach(visit);
    };
    steps.forEach(visit);
    return understood ? { needs, operators } : undefined;
  }
}

/** Columns of a scan as shown: `a`, `s.field`; undefined for a text that no column explains. */
function readColumns(shown: unknown, schema: Schema): readonly string[] | undefined {
  const texts = Array.isArray(shown) ? shown.map(String) : [String(shown ?? "")];
  const names = Object.keys(schema);
  const found: string[] = [];
  for (const text of texts) {
    if (text === "" && texts.length === 1) continue;
    const matching = names.filter((name) => text === name || text.startsWith(`${name}.`));
    if (matching.length === 0) return undefined;
    found.push(...matching);
  }
  return found;
}
