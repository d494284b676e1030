// Questions about strings of a table, answered once a string and only for those that are asked
// about: a table also holds an id a flow, far more than names.

import type { EventTable } from "./event-table.ts";

/** `test` of the string at an index, remembered. */
export function stringTest(
  { strings }: Pick<EventTable, "strings">,
  test: (text: string) => boolean,
): (index: number) => boolean {
  const answers = new Uint8Array(strings.length);
  return (index) => {
    let answer = answers[index]!;
    if (answer === 0) {
      answer = test(strings[index]!) ? 2 : 1;
      answers[index] = answer;
    }
    return answer === 2;
  };
}
