// Functions in TypeScript that SQL can call: DuckDB scalar functions whose work is a callback over
// vectors. They are registered on the connections of the tasks that use them, and are part of what
// those tasks' keys say.
//
// A callback runs on the one thread of JavaScript, whatever threads DuckDB has; the client hands
// each chunk over and waits. More than two or three cores therefore gain a task little.

import {
  type DuckDBConnection,
  DuckDBScalarFunction,
  type DuckDBType,
  type DuckDBValue,
  type DuckDBVector,
  JSDuckDBValueConverter,
  JSToDuckDBValueConverter,
} from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import { fitOf } from "./fit.ts";
import {
  type FunctionRef,
  functionRef,
  loadFunction,
  type ModuleFunction,
} from "./function-ref.ts";

/** What a function is called with and gives; DuckDB types as SQL writes them. */
export interface UdfOptions {
  /** `["BIGINT", "VARCHAR[]", "STRUCT(a INTEGER)", "MAP(VARCHAR, DOUBLE)"]`, … @default none */
  readonly parameters?: readonly string[];
  /** The type of any further arguments. */
  readonly varArgs?: string;
  readonly returns: string;
  /**
   * Given the arguments of one row, as JavaScript has them (BIGINT is a bigint, TIMESTAMP a Date);
   * null or undefined is NULL. Pure and not async, or of a module (`fromModule`).
   */
  // biome-ignore lint/suspicious/noExplicitAny: SQL types are not known to the compiler.
  readonly fn: ModuleFunction | ((...args: any[]) => unknown);
  /** Other results for the same arguments: it is called for every row. @default false */
  readonly volatile?: boolean;
  /** `null`: a NULL argument gives NULL without a call. `call`: it is passed. @default "null" */
  readonly nulls?: "null" | "call";
}

/** A function for SQL, as plain data. */
export interface UdfRef {
  readonly name: string;
  readonly parameters: readonly string[];
  readonly varArgs?: string;
  readonly returns: string;
  readonly fn: FunctionRef;
  readonly volatile: boolean;
  readonly nulls: "null" | "call";
}

/** A function for the `udfs` of a call; made by {@link udf}. */
export class Udf {
  readonly ref: UdfRef;

  constructor(ref: UdfRef) {
    this.ref = ref;
  }
}

const allowed = ["parameters", "varArgs", "returns", "fn", "volatile", "nulls"];

/**
 * Makes a function that SQL can call by name.
 *
 * @param source `file:line` of the call, for messages.
 * @throws InputError, PlanError for a captured variable
 */
export function makeUdf(name: string, options: UdfOptions, source: string): Udf {
  if (!/^[A-Za-z_]\w*$/.test(name)) {
    throw new InputError("udf: name", name, "letters, digits and '_', not a digit first");
  }
  const unknown = Object.keys(options).find((key) => !allowed.includes(key));
  if (unknown !== undefined) throw new InputError("udf", unknown, allowed.join(", "));
  const { parameters = [], varArgs, returns, fn, volatile = false, nulls = "null" } = options;
  return new Udf({
    name,
    parameters,
    returns,
    volatile,
    nulls,
    fn: functionRef(fn, source),
    ...(varArgs !== undefined && { varArgs }),
  });
}

/** Registers functions on a connection's instance, which should not serve other tasks after. */
export async function registerUdfs(
  udfs: readonly UdfRef[],
  connection: DuckDBConnection,
): Promise<void> {
  for (const udf of udfs) {
    const typeOf = (text: string): Promise<DuckDBType> => typeNamed(text, udf.name, connection);
    const fn = await loadFunction(udf.fn);
    const parameterTypes = await Promise.all(udf.parameters.map(typeOf));
    const returnType = await typeOf(udf.returns);
    connection.registerScalarFunction(
      DuckDBScalarFunction.create({
        name: udf.name,
        parameterTypes,
        returnType,
        ...(udf.varArgs !== undefined && { varArgsType: await typeOf(udf.varArgs) }),
        volatile: udf.volatile,
        specialHandling: true,
        mainFunction: (info, input, output) => {
          try {
            const columns = Array.from({ length: input.columnCount }, (_, i) =>
              reader(input.getColumnVector(i)),
            );
            callOver(fn, udf, columns, input.rowCount, output);
          } catch (error) {
            const message = error instanceof Error ? error.message : String(error);
            info.setError(`UDF ${udf.name}: ${message}`);
          }
        },
      }),
    );
  }
}

/** A DuckDB type from its text. @throws InputError */
async function typeNamed(
  text: string,
  udf: string,
  connection: DuckDBConnection,
): Promise<DuckDBType> {
  try {
    return (await connection.run(`SELECT CAST(NULL AS ${text}) WHERE false`)).columnType(0);
  } catch (cause) {
    throw new InputError(`udf ${udf}: type`, text, "a DuckDB type", { cause });
  }
}

type Reader = (row: number) => unknown;

function reader(vector: DuckDBVector): Reader {
  const { type } = vector;
  return (row) => JSDuckDBValueConverter(vector.getItem(row), type, JSDuckDBValueConverter);
}

function callOver(
  fn: (...args: unknown[]) => unknown,
  udf: UdfRef,
  columns: readonly Reader[],
  rows: number,
  output: DuckDBVector,
): void {
  const { type } = output;
  const fit = fitOf(type) ?? ((value: unknown): unknown => value);
  const put = output as unknown as { setItem(row: number, value: DuckDBValue): void };
  for (let row = 0; row < rows; row++) {
    const args = columns.map((read) => read(row));
    const skip = udf.nulls === "null" && args.includes(null);
    const value = skip ? null : (fn(...args) ?? null);
    if (value instanceof Promise) throw new TypeError("it is async, which SQL cannot wait for");
    put.setItem(
      row,
      value === null
        ? null
        : (JSToDuckDBValueConverter(
            fit(value) as never,
            type,
            JSToDuckDBValueConverter,
          ) as DuckDBValue),
    );
  }
  output.flush();
}
