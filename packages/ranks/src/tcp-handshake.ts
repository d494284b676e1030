// How two ends of a connection convince each other that they hold the same secret, without sending
// it: each answers a random challenge of the other by an HMAC. The client proves itself first, so
// that a stranger who connects gets 32 random bytes and nothing else. It authenticates; it does not
// encrypt.
//
// client: magic, purpose, nonce | server: nonce | client: hello, HMAC | server: verdict, HMAC

import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { SecretRefusedError } from "./tcp-errors.ts";

/** What a connection is for; a client of one kind is a stranger to the other. */
export type Purpose = "store" | "link";

const magic = Buffer.from("OIRANK\x01", "latin1");
const nonceBytes = 32;
const macBytes = 32;
const purposes: readonly Purpose[] = ["store", "link"];
const openingBytes = magic.length + 1 + nonceBytes;
const verdictBytes = 1 + macBytes;

/** What a client says of itself, under the HMAC: a number of its own choice, such as its rank. */
const helloBytes = 8;

/** The key that ends prove to hold; no secret is a key too, the same for all who have none. */
export function handshakeKey(secret: string): Buffer {
  return createHash("sha256").update("open-infra ranks\0").update(secret).digest();
}

function proof(
  key: Buffer,
  role: "client" | "server",
  opening: Uint8Array,
  nonce: Uint8Array,
  hello: Uint8Array,
): Buffer {
  return createHmac("sha256", key)
    .update(role)
    .update(opening)
    .update(nonce)
    .update(hello)
    .digest();
}

/** What to do after some bytes have come. */
export interface HandshakeStep {
  readonly send?: Uint8Array;
  /** The other end is who it should be; `rest` came after the handshake. */
  readonly done?: { readonly rest: Uint8Array; readonly hello: number };
  /** The other end is a stranger: send what is above, and end the connection. */
  readonly refused?: string;
}

/** Collects bytes until a message of fixed size is complete. */
class Collector {
  #bytes = Buffer.alloc(0);

  add(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
  }

  take(count: number): Buffer | undefined {
    if (this.#bytes.length < count) return undefined;
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }

  rest(): Buffer {
    return this.#bytes;
  }
}

/** The end that was connected to. */
export class ServerHandshake {
  readonly #key: Buffer;
  readonly #purpose: Purpose;
  readonly #nonce = randomBytes(nonceBytes);
  readonly #input = new Collector();
  #opening: Buffer | undefined;

  constructor(key: Buffer, purpose: Purpose) {
    this.#key = key;
    this.#purpose = purpose;
  }

  push(bytes: Uint8Array): HandshakeStep {
    this.#input.add(bytes);
    if (this.#opening === undefined) {
      // A wrong start is refused as soon as it shows, whatever its length.
      const start = this.#input.rest().subarray(0, magic.length);
      if (!magic.subarray(0, start.length).equals(start)) return { refused: "not our protocol" };
      this.#opening = this.#input.take(openingBytes);
      if (this.#opening === undefined) return {};
      if (purposes[this.#opening[magic.length] ?? -1] !== this.#purpose) {
        return { refused: `not a ${this.#purpose} connection` };
      }
      return { send: this.#nonce };
    }
    const answer = this.#input.take(helloBytes + macBytes);
    if (answer === undefined) return {};
    const hello = answer.subarray(0, helloBytes);
    const expected = proof(this.#key, "client", this.#opening, this.#nonce, hello);
    if (!timingSafeEqual(answer.subarray(helloBytes), expected)) {
      return { send: new Uint8Array(verdictBytes), refused: "another secret" };
    }
    const own = proof(this.#key, "server", this.#opening, this.#nonce, hello);
    const send = Buffer.concat([Uint8Array.of(1), own]);
    return { send, done: { rest: this.#input.rest(), hello: Number(hello.readBigInt64LE()) } };
  }
}

/** The end that connects. */
export class ClientHandshake {
  readonly opening: Uint8Array;
  readonly #key: Buffer;
  readonly #what: string;
  readonly #hello = Buffer.alloc(helloBytes);
  readonly #input = new Collector();
  #nonce: Buffer | undefined;

  /** @param what For errors: `the store at 10.0.0.1:29500`. */
  constructor(key: Buffer, purpose: Purpose, what: string, hello = 0) {
    this.#key = key;
    this.#what = what;
    this.#hello.writeBigInt64LE(BigInt(hello));
    const kind = Uint8Array.of(purposes.indexOf(purpose));
    this.opening = Buffer.concat([magic, kind, randomBytes(nonceBytes)]);
  }

  /** @throws SecretRefusedError if either end does not believe the other */
  push(bytes: Uint8Array): HandshakeStep {
    this.#input.add(bytes);
    if (this.#nonce === undefined) {
      this.#nonce = this.#input.take(nonceBytes);
      if (this.#nonce === undefined) return {};
      const own = proof(this.#key, "client", this.opening, this.#nonce, this.#hello);
      return { send: Buffer.concat([this.#hello, own]) };
    }
    const verdict = this.#input.take(verdictBytes);
    if (verdict === undefined) return {};
    if (verdict[0] !== 1) {
      throw new SecretRefusedError(this.#what, "our secret was refused");
    }
    const expected = proof(this.#key, "server", this.opening, this.#nonce, this.#hello);
    if (!timingSafeEqual(verdict.subarray(1), expected)) {
      throw new SecretRefusedError(this.#what, "it does not hold our secret");
    }
    return { done: { rest: this.#input.rest(), hello: 0 } };
  }
}
