// The worker of the pipeline page: a module of this origin, so that the content policy needs no
// exception, which computes while the page stays live.

import { answerWith } from "../../ui/worker-answer.ts";
import {
  buffersOf,
  type CompareResult,
  compare,
  type PipelineResult,
  pipeline,
} from "./compute.ts";
import type { CompareRequest, PipelineRequest } from "./inputs.ts";

answerWith(
  (request: PipelineRequest | CompareRequest): PipelineResult | CompareResult =>
    request.kind === "simulate" ? pipeline(request) : compare(request),
  buffersOf,
);
