// Functions that the tests' SQL calls by name.

const mark = "!";

export function shout(text: string): string {
  return text.toUpperCase() + mark;
}
