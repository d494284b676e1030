// Which checkpoint a command means: the one named, else the demo that ships with the command.

import { statSync } from "node:fs";
import { demoModelDir } from "@open-infra/demo-model";
import { UsageError } from "./parse.ts";

export function modelDir(named: string | undefined): string {
  if (named === undefined) return demoModelDir;
  const found = statSync(named, { throwIfNoEntry: false });
  if (found === undefined) throw new UsageError(`there is no folder ${named}`);
  if (!found.isDirectory()) {
    throw new UsageError(
      `${named} is a file; name the folder that holds config.json and the weights`,
    );
  }
  return named;
}
