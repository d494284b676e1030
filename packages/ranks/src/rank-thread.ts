// The first module of a rank's thread.

import { workerData } from "node:worker_threads";
import { portChannel } from "./channel.ts";
import { type RankStart, runRank } from "./rank-run.ts";

void runRank(workerData as RankStart, portChannel());
