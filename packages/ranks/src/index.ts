// The public face: groups of ranks, windows they put into, kernels that communicate, and the ways
// to start ranks.

export {
  type Addressed,
  type CommKernel,
  type CommValues,
  defineCommKernel,
} from "./comm-kernel.ts";
export type { RankActivity, RankState } from "./control.ts";
export {
  type Environment,
  type RankEnvironment,
  RankEnvironmentError,
  readRankEnvironment,
} from "./environment.ts";
export {
  describeRank,
  GroupAbortedError,
  GroupClosedError,
  GroupError,
  RankDeadError,
  RankMismatchError,
  type RankName,
  RanksSystemError,
  RankTimeoutError,
} from "./errors.ts";
export { Group } from "./group.ts";
export type {
  JoinOptions,
  KernelRun,
  LinkKind,
  RankExitPolicy,
  RankWait,
  SlowRankReport,
  Traffic,
} from "./group-options.ts";
export { joinGroup } from "./join.ts";
export { type JoinEnvironmentOptions, joinFromEnvironment } from "./join-environment.ts";
export {
  type LaunchFailure,
  type LaunchOptions,
  type LaunchResult,
  launchRanks,
} from "./launch.ts";
export type { LineSink } from "./launch-output.ts";
export type { RankExit } from "./launch-process.ts";
export { MemoryStore } from "./memory-store.ts";
export { type ProcessesOptions, runProcesses } from "./processes.ts";
export { type Store, StoreFailedError, StoreTimeoutError } from "./store.ts";
export { type CommEvent, doneEvent } from "./stream.ts";
export {
  PortInUseError,
  SecretRefusedError,
  StoreLostError,
  UnreachableError,
} from "./tcp-errors.ts";
export { TcpStore, type TcpStoreOptions } from "./tcp-store.ts";
export { type StoreServerOptions, TcpStoreServer } from "./tcp-store-server.ts";
export { type RunOptions, runThreads, type ThreadsOptions } from "./threads.ts";
export { hasRdma, hasUcx, UcxError, UcxMissingError } from "./ucx-library.ts";
export type { WaitResult, Window, WindowOptions } from "./window.ts";
