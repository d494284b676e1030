// All peers, by name.

import { jaxJs, onnxRuntime } from "./npm-peers.ts";
import { oneDnn } from "./onednn.ts";
import { openBlas } from "./openblas.ts";
import type { PeerAdapter } from "./peer.ts";

export const adapters: readonly PeerAdapter[] = [oneDnn, openBlas, onnxRuntime, jaxJs];
