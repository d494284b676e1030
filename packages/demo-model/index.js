import { fileURLToPath } from "node:url";

/** The folder of the demo checkpoint, in the hub's layout. */
export const demoModelDir = fileURLToPath(new URL("./model", import.meta.url));
