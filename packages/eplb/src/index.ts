// The public face of the package: rebalancing, its measures, migration, the online controller. All
// of it is pure and runs anywhere, the browser included.

export type {
  BalanceReport,
  EplbShape,
  LayerBalance,
  LoadRows,
  Placement,
} from "./placement.ts";
