// One rank's run of all there is, so that a transport is started once.

import type { Group } from "@open-infra/ranks";
import grid, { type GridPart } from "./grid.ts";
import services, { type ServiceData } from "./services.ts";

/** What a rank is given; plain data. */
export interface EverythingData {
  readonly parts: readonly GridPart[];
  readonly services: ServiceData;
}

export default async function everything(group: Group, data: EverythingData): Promise<number> {
  const held = await grid(group, data.parts);
  await services(group, data.services);
  return held;
}
