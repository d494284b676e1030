// Imported before a user's script: an error that one of our packages raised on purpose is shown as
// its message and the places in the user's files, not as our stack. Any other error, and a script
// that looks after its errors itself, is left to Node.

import { writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread } from "node:worker_threads";

/** Where our packages lie, in a checkout or below node_modules. */
const home = fileURLToPath(new URL("../../", import.meta.url));
const framesMax = 5;

function isOurs(error: unknown): error is Error {
  // By name: a script may have a copy of the package of its own.
  for (let at = error; at instanceof Error; at = Object.getPrototypeOf(at)) {
    if (at.constructor.name === "InfraError") return true;
  }
  return false;
}

/** `file:line` of the frames of a stack that are in neither Node, a package, nor ours. */
function userFrames(stack: string): string[] {
  const places = stack
    .split("\n")
    .map(
      (line) =>
        /^ {4}at (?:async )?(?:.*\()?((?:file:\/\/)?\/[^()]+?:\d+(?::\d+)?)\)?$/.exec(line)?.[1],
    )
    .filter((place) => place !== undefined)
    .map((place) => decodeURI(place.replace("file://", "")))
    .filter((place) => !place.includes("/node_modules/"))
    .filter((place) => !(place.startsWith(home) && /^[^/]+\/(src|dist)\//.test(tail(place))));
  return [...new Set(places)].slice(0, framesMax);
}

const tail = (place: string): string => place.slice(home.length);

if (isMainThread) {
  process.on("uncaughtExceptionMonitor", (error) => {
    if (process.listenerCount("uncaughtException") > 0 || !isOurs(error)) return;
    const frames = userFrames(error.stack ?? "").map((place) => `    at ${place}\n`);
    writeSync(2, `${error.name}: ${error.message}\n${frames.join("")}`);
    // Now, before Node shows it its own way; what a script had to tidy up it has.
    process.exit(1);
  });
}
