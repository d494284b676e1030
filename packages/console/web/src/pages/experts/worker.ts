// The worker of the experts page: a module of this origin, so that the content policy needs no
// exception, which computes while the page stays live.

import { answerWith } from "../../ui/worker-answer.ts";
import { type OnlineResult, type PlaceResult, place, replay } from "./compute.ts";
import type { OnlineRequest, PlaceRequest } from "./inputs.ts";

answerWith((request: PlaceRequest | OnlineRequest): PlaceResult | OnlineResult =>
  request.kind === "place" ? place(request) : replay(request),
);
