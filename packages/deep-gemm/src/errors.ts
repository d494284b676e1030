// Errors of this package that are not about a tensor's type or shape.

import { InfraError } from "@open-infra/tensor";

/** A number, an option, or the content of an index tensor, is outside what the operation takes. */
export class ArgumentError extends InfraError {
  readonly argument: string;

  constructor(operation: string, argument: string, got: string, allowed: string) {
    super("argument", `${operation}: ${argument} is ${got}; expected ${allowed}`);
    this.argument = argument;
  }
}
