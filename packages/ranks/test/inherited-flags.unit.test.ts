// Which of a process's flags its ranks have as well.

import { expect, test } from "vitest";
import { inheritedFlags } from "../src/processes.ts";

test("a script on the command line is not handed on, nor a debugger's port", () => {
  const own = ["--conditions=x", "-e", "start()", "--inspect=9229", "--max-old-space-size=99"];
  expect(inheritedFlags(own)).toEqual(["--conditions=x", "--max-old-space-size=99"]);
  expect(inheritedFlags(["--eval=f()", "--input-type", "module", "-p", "1"])).toEqual([]);
});
