// HTTP by hand, for what no client library would send.

import { connect, type Socket } from "node:net";
import type { RunningServer } from "../../src/index.ts";

export class RawConnection implements Disposable {
  readonly socket: Socket;
  received = "";
  readonly closed: Promise<void>;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.received += chunk.toString();
    });
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => socket.on("close", () => resolve()));
  }

  static async open({ host, port }: Pick<RunningServer, "host" | "port">): Promise<RawConnection> {
    const socket = connect({ host, port });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", () => resolve());
      socket.once("error", reject);
    });
    return new RawConnection(socket);
  }

  send(text: string): void {
    this.socket.write(text);
  }

  /** The body of a JSON answer that has come in full, with its status. */
  get answer(): { readonly status: number; readonly body: unknown } {
    const status = Number(/^HTTP\/1\.1 (\d+)/.exec(this.received)?.[1]);
    const body = this.received.split("\r\n\r\n")[1] ?? "";
    return { status, body: JSON.parse(body) };
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** A POST's head, with the headers that matter left to the test. */
export function postHead(path: string, headers: Record<string, string | number> = {}): string {
  const all = { host: "localhost", "content-type": "application/json", ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n`;
}
