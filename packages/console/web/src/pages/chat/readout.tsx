// The measurements of a generation as a strip of small instruments.

import type { VNode } from "preact";
import { formatCount, formatMs, formatQuantity } from "../../ui/format.ts";
import type { Generation, GenerationState } from "./generation.ts";

/** Draws one generation's state and numbers; keeps up while it runs. */
export function Readout({ generation }: { readonly generation: Generation }): VNode {
  const metrics = generation.metrics.value;
  const cached = metrics.cachedTokens;
  return (
    <dl class="readout">
      <Item label="State" value={stateText(generation.state.value)} />
      <Item label="First token" value={formatMs(metrics.timeToFirstTokenMs)} />
      <Item label="Speed" value={formatQuantity(metrics.tokensPerSecond)} unit="tok/s" />
      <Item
        label="Completion"
        value={(metrics.estimated ? "≈ " : "") + formatCount(metrics.completionTokens)}
        unit="tok"
      />
      <Item label="Prompt" value={formatCount(metrics.promptTokens)} unit="tok" />
      <Item label="Cached" value={formatCount(cached)} unit="tok" />
    </dl>
  );
}

interface ItemProps {
  readonly label: string;
  readonly value: string;
  readonly unit?: string;
}

function Item({ label, value, unit }: ItemProps): VNode {
  return (
    <div>
      <dt>{label}</dt>
      <dd>
        {value}
        {unit !== undefined && <span class="unit"> {unit}</span>}
      </dd>
    </div>
  );
}

/** The state in words; a finish reason the app does not know is shown as it came. */
export function stateText(state: GenerationState): string {
  if (state.phase === "finished") {
    const known: Record<string, string> = { stop: "Complete", length: "Length limit" };
    return known[state.reason] ?? state.reason;
  }
  const words = {
    waiting: "Waiting",
    streaming: "Writing",
    stopped: "Stopped by you",
    failed: "Failed",
  } as const;
  return words[state.phase];
}
