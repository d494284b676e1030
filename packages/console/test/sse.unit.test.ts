// The event-stream parser: the same events however the bytes are cut.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { SseError, type SseEvent, SseParser, sseEvents } from "../web/src/api/sse.ts";

function parse(text: string): SseEvent[] {
  return new SseParser().push(text);
}

function dataOf(text: string): string[] {
  return parse(text).map((event) => event.data);
}

function streamOf(chunks: readonly Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}

describe("SseParser", () => {
  it("reads the fields of an event", () => {
    expect(parse("event: tick\nid: 7\ndata: one\ndata:two\ndata:  three\n\n")).toEqual([
      { event: "tick", id: "7", data: "one\ntwo\n three" },
    ]);
  });

  it("keeps the id and resets the event's name", () => {
    expect(parse("event: a\nid: 1\ndata: x\n\ndata: y\n\n")).toEqual([
      { event: "a", id: "1", data: "x" },
      { event: "message", id: "1", data: "y" },
    ]);
  });

  it("takes LF, CR and CR LF alike", () => {
    expect(dataOf("data: a\r\rdata: b\r\n\r\ndata: c\n\n")).toEqual(["a", "b", "c"]);
  });

  it("skips a byte order mark, comments, unknown fields and events without data", () => {
    expect(
      dataOf("\ufeff: ping\n\nretry: 10\nfoo: bar\n\nevent: x\n\ndata\n\ndata: a\n\n"),
    ).toEqual(["", "a"]);
  });

  it("does not dispatch an event that is cut off", () => {
    expect(dataOf("data: a\n\ndata: b\n")).toEqual(["a"]);
  });

  it("refuses an event that grows without end, in one line or in many", () => {
    const limit = { eventCharsMax: 100 };
    expect(() => new SseParser(limit).push(`data: ${"x".repeat(200)}`)).toThrow(SseError);
    expect(() => new SseParser(limit).push("data: 0123456789\n".repeat(20))).toThrow(SseError);
    const many = new SseParser(limit);
    expect(many.push("data: 0123456789\n\n".repeat(20))).toHaveLength(20);
  });
});

describe("sseEvents", () => {
  it("gives the same events however the bytes are cut", async () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    const text = '\ufeffid: 1\r\ndata: häß→🙂\r\n\r\n: c\r\rdata: a\rdata: b\r\rdata: {"x": 1}\n\n';
    const bytes = new TextEncoder().encode(text);
    const whole = parse(text);
    expect(whole).toHaveLength(3);
    for (let round = 0; round < 200; round++) {
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; ) {
        const end = at + random.int(1, 7);
        chunks.push(bytes.subarray(at, end));
        at = end;
      }
      const events = await Array.fromAsync(sseEvents(streamOf(chunks)));
      expect(events, `seed ${seed}, round ${round}`).toEqual(whole);
    }
  });

  it("cancels the body when the reader leaves", async () => {
    let cancelled = false;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
      cancel: () => {
        cancelled = true;
      },
    });
    for await (const event of sseEvents(endless)) {
      expect(event.data).toBe("x");
      break;
    }
    expect(cancelled).toBe(true);
  });
});
