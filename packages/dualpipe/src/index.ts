// The public face of the pure part: schedules and everything computed from them. It runs anywhere,
// the browser included; ranks that really run stages are in `@open-infra/dualpipe/runtime`.

export {
  type Op,
  type OpInput,
  OpKind,
  type OpKindName,
  opAt,
  opKindNames,
  type RankOps,
  RankOpsBuilder,
  type Schedule,
  type ScheduleName,
} from "./schedule/schedule.ts";
