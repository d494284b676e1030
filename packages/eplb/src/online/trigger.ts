// When the balance is looked at, and when it is bad enough to act: an interval, two thresholds so
// that load at the edge does not make it flutter, and quiet times. Pure.

/** What the trigger remembers. */
export interface TriggerState {
  /** The step of the next check. */
  readonly nextCheck: number;
  /** No migration for balance alone may begin before this step. */
  readonly quietUntil: number;
  /** Above `startAbove` at some check, and not below `stopBelow` at one since. */
  readonly correcting: boolean;
}

/** The trigger's part of the controller's options. */
export interface TriggerOptions {
  readonly intervalSteps: number;
  readonly startAbove: number;
  readonly stopBelow: number;
}

/** The first check comes after a quarter of the interval, as in vLLM: the start is rarely good. */
export function startTrigger({ intervalSteps }: TriggerOptions): TriggerState {
  return { nextCheck: Math.ceil(intervalSteps / 4), quietUntil: 0, correcting: false };
}

/** Whether the balance is to be measured at this step. */
export function isCheckDue(state: TriggerState, step: number): boolean {
  return step >= Math.max(state.nextCheck, state.quietUntil);
}

/** The state after a check that saw `maxOverMean`; `correcting` says whether to act on it. */
export function afterCheck(
  state: TriggerState,
  step: number,
  maxOverMean: number,
  options: TriggerOptions,
): TriggerState {
  const correcting = state.correcting
    ? maxOverMean >= options.stopBelow
    : maxOverMean > options.startAbove;
  return { ...state, correcting, nextCheck: step + options.intervalSteps };
}

/** The state once a migration has ended: quiet for `steps`. */
export function quiet(state: TriggerState, step: number, steps: number): TriggerState {
  return { ...state, quietUntil: Math.max(state.quietUntil, step + steps) };
}
