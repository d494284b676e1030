// UCX's C interface as far as a link needs it, called straight through koffi: a worker, endpoints,
// active messages. The structs are packed by hand after ucp.h of UCX 1.10 and later, whose layout
// is kept stable by a mask of the fields that are set.

import { existsSync, readdirSync } from "node:fs";
import { InfraError } from "@open-infra/errors";
import { addressOf, viewOf } from "@open-infra/jit";
import koffi from "koffi";

/** libucp cannot be loaded. */
export class UcxMissingError extends InfraError {
  constructor(cause: unknown) {
    super(
      "ucx-missing",
      "transport ucx needs libucp.so.0, which cannot be loaded: install UCX (Debian: apt-get " +
        'install libucx0), or use transport "tcp"',
      { cause },
    );
  }
}

/** UCX refused something. */
export class UcxError extends InfraError {
  readonly status: number;

  constructor(what: string, status: number, text: string) {
    super("ucx", `${what}: ${text} (${status})`);
    this.status = status;
  }
}

type Handle = bigint;
type Native = (...args: readonly unknown[]) => unknown;

const prototypes = {
  ucp_init_version: "int ucp_init_version(uint, uint, void *, void *, void *)",
  ucp_cleanup: "void ucp_cleanup(void *)",
  ucp_config_read: "int ucp_config_read(void *, void *, void *)",
  ucp_config_modify: "int ucp_config_modify(void *, const char *, const char *)",
  ucp_config_release: "void ucp_config_release(void *)",
  ucp_worker_create: "int ucp_worker_create(void *, void *, void *)",
  ucp_worker_destroy: "void ucp_worker_destroy(void *)",
  ucp_worker_get_address: "int ucp_worker_get_address(void *, void *, void *)",
  ucp_worker_release_address: "void ucp_worker_release_address(void *, void *)",
  ucp_worker_get_efd: "int ucp_worker_get_efd(void *, void *)",
  ucp_worker_arm: "int ucp_worker_arm(void *)",
  ucp_worker_progress: "uint ucp_worker_progress(void *)",
  ucp_worker_set_am_recv_handler: "int ucp_worker_set_am_recv_handler(void *, void *)",
  ucp_ep_create: "int ucp_ep_create(void *, void *, void *)",
  ucp_ep_close_nbx: "intptr_t ucp_ep_close_nbx(void *, void *)",
  ucp_ep_flush_nbx: "intptr_t ucp_ep_flush_nbx(void *, void *)",
  ucp_am_send_nbx: "intptr_t ucp_am_send_nbx(void *, uint, void *, size_t, void *, size_t, void *)",
  ucp_am_recv_data_nbx: "intptr_t ucp_am_recv_data_nbx(void *, void *, void *, size_t, void *)",
  ucp_request_check_status: "int ucp_request_check_status(void *)",
  ucp_request_free: "void ucp_request_free(void *)",
  ucp_request_cancel: "void ucp_request_cancel(void *, void *)",
} as const;

type Functions = { readonly [K in keyof typeof prototypes]: Native };

/** Status codes of ucs_status.h that are no errors. */
const inProgress = 1;
const busy = -15;

const featureWakeup = 1n << 4n;
const featureActiveMessages = 1n << 6n;
const messageId = 7;
const flagRendezvous = 1n << 17n;

/** What comes in: a message whole, or one whose payload is fetched into memory of our choice. */
export interface UcxReceiver {
  /** The header is valid during the call only, and so is the payload. */
  message(header: Uint8Array, payload: Uint8Array): void;
  /** To be answered later by {@link UcxWorker.fetch}. */
  large(header: Uint8Array, bytes: number, descriptor: bigint): void;
  /** UCX has given up on a peer. */
  failed(peer: number, reason: string): void;
}

/** An operation that has not ended; `free` after it has. */
export type UcxRequest = bigint;

let functions: Functions | undefined;
let statusText: ((status: number) => string) | undefined;

/** @throws UcxMissingError */
function load(): Functions {
  if (functions !== undefined) return functions;
  try {
    const libc = koffi.load(null);
    const setenv = libc.func("int setenv(const char *, const char *, int)");
    // UCX would take over the process's signal handlers. A user's own settings stay.
    setenv("UCX_HANDLE_ERRORS", "none", 0);
    setenv("UCX_WARN_UNUSED_ENV_VARS", "n", 0);
    // Its warnings go to stdout, which is the rank's own.
    setenv("UCX_LOG_LEVEL", "error", 0);
    // Without RDMA there are no registrations to watch memory for.
    if (!hasRdma()) setenv("UCX_MEM_EVENTS", "no", 0);
    const ucs = koffi.load("libucs.so.0");
    const ucp = koffi.load("libucp.so.0");
    statusText = ucs.func("const char *ucs_status_string(int)") as unknown as typeof statusText;
    functions = Object.fromEntries(
      Object.entries(prototypes).map(([name, prototype]) => [name, ucp.func(prototype)]),
    ) as unknown as Functions;
    return functions;
  } catch (cause) {
    throw new UcxMissingError(cause);
  }
}

/** True if libucp can be loaded here. */
export function hasUcx(): boolean {
  try {
    load();
    return true;
  } catch {
    return false;
  }
}

/** True if this machine has InfiniBand or RoCE. */
export function hasRdma(): boolean {
  const devices = "/sys/class/infiniband";
  return existsSync(devices) && readdirSync(devices).length > 0;
}

function must(what: string, status: unknown): void {
  if (Number(status) >= 0) return;
  throw new UcxError(what, Number(status), statusText?.(Number(status)) ?? "unknown");
}

/** A pointer that a call writes. */
function out(): BigInt64Array<ArrayBuffer> {
  return new BigInt64Array(1);
}

/** A struct of 64-bit words. */
function struct(
  words: readonly (bigint | number)[],
  room = words.length,
): BigInt64Array<ArrayBuffer> {
  const block = new BigInt64Array(Math.max(room, words.length));
  words.forEach((word, i) => {
    block[i] = BigInt(word);
  });
  return block;
}

const receiveType = koffi.proto(
  "int oi_ucx_receive(void *arg, void *header, size_t header_length, void *data, size_t length, " +
    "void *param)",
);

const failureType = koffi.proto("void oi_ucx_failure(void *arg, void *endpoint, int status)");

/** One UCX worker with a context of its own; for one thread. */
export class UcxWorker {
  /** This worker's address for others. */
  readonly address: Uint8Array;
  /** Readable when something has come since {@link arm}. */
  readonly eventFd: number;
  readonly #ucp: Functions;
  readonly #context: Handle;
  readonly #worker: Handle;
  readonly #endpoints = new Map<number, Handle>();
  /** `ucp_request_param_t` with nothing set; addresses of memory that must stay. */
  readonly #plain = struct([], 12);
  readonly #force = struct([(1n << 4n) | (1n << 32n)], 12);
  readonly #callback: bigint;
  readonly #failureCallback: bigint;
  /** Whether UCX is at work, and whom to disconnect after it. */
  #inside = false;
  readonly #leaving: number[] = [];
  readonly #handlesErrors: boolean;

  /**
   * @param settings UCX's own, without their prefix: `TLS`, `NET_DEVICES`.
   * @param handlesErrors Whether its transports can tell that a peer is gone.
   * @throws UcxMissingError, UcxError
   */
  constructor(
    settings: Readonly<Record<string, string>>,
    receiver: UcxReceiver,
    handlesErrors: boolean,
  ) {
    const ucp = load();
    this.#handlesErrors = handlesErrors;
    this.#ucp = ucp;
    this.#context = openContext(ucp, settings);
    const worker = out();
    // thread mode: single.
    must("ucp_worker_create", ucp.ucp_worker_create(this.#context, struct([1, 0], 40), worker));
    this.#worker = worker[0] as bigint;
    this.#callback = BigInt(
      koffi.register(makeCallback(receiver), koffi.pointer(receiveType)) as bigint,
    );
    const handler = struct([0b101, messageId, this.#callback, 0], 8);
    must("setting the handler", ucp.ucp_worker_set_am_recv_handler(this.#worker, handler));
    const failed = (_arg: bigint, endpoint: bigint, status: number): void => {
      for (const [peer, known] of this.#endpoints) {
        if (known === endpoint) receiver.failed(peer, statusText?.(status) ?? `${status}`);
      }
    };
    this.#failureCallback = BigInt(koffi.register(failed, koffi.pointer(failureType)) as bigint);
    const fd = new Int32Array(2);
    must("ucp_worker_get_efd", ucp.ucp_worker_get_efd(this.#worker, fd));
    this.eventFd = fd[0] as number;
    const at = out();
    const length = out();
    must("ucp_worker_get_address", ucp.ucp_worker_get_address(this.#worker, at, length));
    this.address = viewOf(Number(at[0]), Number(length[0])).slice();
    ucp.ucp_worker_release_address(this.#worker, at[0]);
  }

  /** @throws UcxError if there is no way to that address with the transports that are allowed */
  connect(peer: number, address: Uint8Array): void {
    const endpoint = out();
    // Address, error mode and handler. With mode "none" UCX ends the process when a connection
    // breaks; shared memory knows no other, and cannot break.
    const mode = this.#handlesErrors ? 1 : 0;
    const params = struct([0b111, addressOf(address), mode, this.#failureCallback, 0], 24);
    must("ucp_ep_create", this.#ucp.ucp_ep_create(this.#worker, params, endpoint));
    this.#endpoints.set(peer, endpoint[0] as bigint);
  }

  /**
   * Sends a message. Header and payload stay untouched until the request has ended.
   *
   * @returns undefined if it has ended already
   */
  send(peer: number, header: Uint8Array, source: number, bytes: number): UcxRequest | undefined {
    const endpoint = this.#endpoints.get(peer);
    return this.#request(
      "ucp_am_send_nbx",
      this.#ucp.ucp_am_send_nbx(
        endpoint,
        messageId,
        BigInt(addressOf(header)),
        header.byteLength,
        BigInt(source),
        bytes,
        this.#plain,
      ),
    );
  }

  /** Takes the payload of a large message to where it belongs. */
  fetch(descriptor: bigint, target: number, bytes: number): UcxRequest | undefined {
    return this.#request(
      "ucp_am_recv_data_nbx",
      this.#ucp.ucp_am_recv_data_nbx(this.#worker, descriptor, BigInt(target), bytes, this.#plain),
    );
  }

  /** Ends once all that was sent to the peer has been handled there. */
  flush(peer: number): UcxRequest | undefined {
    const endpoint = this.#endpoints.get(peer);
    if (endpoint === undefined) return undefined;
    return this.#request("ucp_ep_flush_nbx", this.#ucp.ucp_ep_flush_nbx(endpoint, this.#plain));
  }

  /** Whether a request has ended; then it is freed. @throws UcxError */
  ended(request: UcxRequest): boolean {
    const status = Number(this.#ucp.ucp_request_check_status(request));
    if (status === inProgress) return false;
    this.#ucp.ucp_request_free(request);
    must("a message", status);
    return true;
  }

  /** Does what there is to do. Returns whether there was anything. */
  progress(): boolean {
    this.#inside = true;
    const done = Number(this.#ucp.ucp_worker_progress(this.#worker)) > 0;
    this.#inside = false;
    for (const peer of this.#leaving.splice(0)) this.disconnect(peer);
    return done;
  }

  /** Asks for the event fd to be written. False: there is something to do already. */
  arm(): boolean {
    const status = Number(this.#ucp.ucp_worker_arm(this.#worker));
    if (status === busy) return false;
    must("ucp_worker_arm", status);
    return true;
  }

  /** Ends a connection without waiting for the other side. */
  disconnect(peer: number): void {
    if (this.#inside) {
      // UCX does not let its callbacks drive it.
      this.#leaving.push(peer);
      return;
    }
    const endpoint = this.#endpoints.get(peer);
    if (endpoint === undefined) return;
    this.#endpoints.delete(peer);
    this.#finish(this.#ucp.ucp_ep_close_nbx(endpoint, this.#force));
  }

  destroy(): void {
    for (const peer of [...this.#endpoints.keys()]) this.disconnect(peer);
    this.#ucp.ucp_worker_destroy(this.#worker);
    this.#ucp.ucp_cleanup(this.#context);
    koffi.unregister(this.#callback);
    koffi.unregister(this.#failureCallback);
  }

  #finish(result: unknown): void {
    const request = BigInt(result as bigint | number);
    if (request >= -1024n && request <= 0n) return;
    for (let i = 0; i < 10_000; i++) {
      this.progress();
      if (Number(this.#ucp.ucp_request_check_status(request)) !== inProgress) break;
    }
    this.#ucp.ucp_request_free(request);
  }

  #request(what: string, result: unknown): UcxRequest | undefined {
    const value = BigInt(result as bigint | number);
    if (value === 0n) return undefined;
    // Errors are small negative numbers in place of a pointer.
    if (value >= -1024n && value < 0n) must(what, Number(value));
    return value;
  }
}

function openContext(ucp: Functions, settings: Readonly<Record<string, string>>): Handle {
  const config = out();
  must("ucp_config_read", ucp.ucp_config_read(null, null, config));
  try {
    for (const [name, value] of Object.entries(settings)) {
      must(`setting ${name}=${value}`, ucp.ucp_config_modify(config[0], name, value));
    }
    const context = out();
    const params = struct([1, featureActiveMessages | featureWakeup], 16);
    // 1.10 is the oldest interface with all that is used here.
    must("ucp_init", ucp.ucp_init_version(1, 10, params, config[0], context));
    return context[0] as bigint;
  } finally {
    ucp.ucp_config_release(config[0]);
  }
}

function makeCallback(receiver: UcxReceiver): (...args: bigint[]) => number {
  return (_arg, header = 0n, headerLength = 0n, data = 0n, length = 0n, param = 0n) => {
    const head = viewOf(Number(header), Number(headerLength));
    const flags = new BigInt64Array(viewOf(Number(param), 16).buffer, 0, 1)[0] as bigint;
    const bytes = Number(length);
    if ((flags & flagRendezvous) !== 0n) {
      receiver.large(head, bytes, data);
      return inProgress;
    }
    receiver.message(head, bytes === 0 ? new Uint8Array(0) : viewOf(Number(data), bytes));
    return 0;
  };
}
