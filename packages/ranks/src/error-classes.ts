// The errors that cross from a rank to whoever started it as what they are.

import { InfraError, InputError } from "@open-infra/errors";
import { CacheError, CompileError, CompilerMissingError, DeviceError } from "@open-infra/jit";
import {
  GroupAbortedError,
  GroupClosedError,
  RankDeadError,
  RankMismatchError,
  RanksSystemError,
  RankTimeoutError,
} from "./errors.ts";
import { StoreFailedError, StoreTimeoutError } from "./store.ts";
import {
  PortInUseError,
  SecretRefusedError,
  StoreLostError,
  UnreachableError,
} from "./tcp-errors.ts";
import { UcxError, UcxMissingError } from "./ucx-library.ts";

/** For `deserializeError`. */
export const rankErrors: readonly { readonly name: string; readonly prototype: InfraError }[] = [
  InfraError,
  InputError,
  CacheError,
  CompileError,
  CompilerMissingError,
  DeviceError,
  GroupAbortedError,
  GroupClosedError,
  RankDeadError,
  RankMismatchError,
  RanksSystemError,
  RankTimeoutError,
  StoreFailedError,
  StoreTimeoutError,
  PortInUseError,
  SecretRefusedError,
  StoreLostError,
  UnreachableError,
  UcxError,
  UcxMissingError,
];
