// Two hosts on one machine: network namespaces joined by a pair of virtual Ethernet devices. They
// go away with the test, and nothing of the machine's own network is touched.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../bin/open-infra.js", import.meta.url));

/** Undefined if it went well, else why not. */
function run(program: string, ...args: string[]): string | undefined {
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8", timeout: 10_000 });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

function ip(...args: string[]): string | undefined {
  return run("ip", ...args);
}

/** True, or why this machine cannot have namespaces. */
export function namespacesRequirement(): true | string {
  if (process.platform !== "linux") return "needs Linux";
  if (process.getuid?.() !== 0) return "needs root to make network namespaces";
  const name = `oi-probe-${process.pid}`;
  const problem = ip("netns", "add", name);
  if (problem !== undefined) return `ip netns add: ${problem} (apt-get install iproute2)`;
  ip("netns", "del", name);
  return true;
}

/** True, or why lines cannot be made bad here. */
export function badLineRequirement(): true | string {
  const met = namespacesRequirement();
  if (met !== true) return met;
  using hosts = new TwoHosts();
  try {
    hosts.worsen();
    return true;
  } catch (error) {
    return (error as Error).message;
  }
}

let made = 0;

/** What a launch in one of the hosts printed, and how it ended. */
export interface HostLaunch {
  readonly child: ChildProcess;
  readonly text: () => string;
  readonly code: Promise<number | null>;
  /** Resolves when it has printed something that matches so often. */
  until(pattern: RegExp, times: number): Promise<void>;
}

/** Two namespaces, `a` and `b`. */
export class TwoHosts implements Disposable {
  readonly addresses: readonly [string, string];
  readonly #names: readonly [string, string];
  readonly #children = new Set<ChildProcess>();

  constructor() {
    const id = `oi${process.pid % 100_000}x${made++}`;
    this.#names = [`${id}a`, `${id}b`];
    this.addresses = ["10.213.7.1", "10.213.7.2"];
    const [a, b] = this.#names;
    try {
      for (const name of this.#names) must("netns", "add", name);
      must("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b);
      this.#names.forEach((name, i) => {
        must("-n", name, "addr", "add", `${this.addresses[i]}/24`, "dev", "eth0");
        must("-n", name, "link", "set", "lo", "up");
        must("-n", name, "link", "set", "eth0", "up");
      });
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * 200 Mbit/s with 1 % of packets lost, and 10 ms far where the kernel has netem; else the rate by
   * a token bucket and the losses by a filter.
   */
  worsen(): void {
    const netem = ["netem", "delay", "10ms", "3ms", "loss", "1%", "rate", "200mbit"];
    const bucket = ["tbf", "rate", "200mbit", "burst", "32k", "latency", "100ms"];
    for (const name of this.#names) {
      const shape = ["-n", name, "qdisc", "replace", "dev", "eth0", "root"];
      if (run("tc", ...shape, ...netem) === undefined) continue;
      const problem = run("tc", ...shape, ...bucket);
      if (problem !== undefined) throw new Error(`neither netem nor tbf: ${problem}`);
      const drop = ["INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.01"];
      run("ip", "netns", "exec", name, "iptables", "-A", ...drop, "-j", "DROP");
    }
  }

  /** Takes the wire away. */
  cut(): void {
    must("-n", this.#names[0], "link", "set", "eth0", "down");
  }

  /** `open-infra launch` on host 0 or 1, with two ranks unless told otherwise. */
  launch(host: 0 | 1, args: readonly string[], env: Record<string, string> = {}): HostLaunch {
    const head = ["--nnodes", "2", "--node-rank", `${host}`, "--master-addr", this.addresses[0]];
    const command = [process.execPath, bin, "launch", ...head, "--nproc-per-node", "2", ...args];
    const child = spawn("ip", ["netns", "exec", this.#names[host], ...command], {
      env: {
        ...process.env,
        OPEN_INFRA_SECRET: "of the two hosts",
        OPEN_INFRA_HOST_ID: `host ${host}`,
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#children.add(child);
    let text = "";
    const take = (chunk: Buffer): void => {
      text += chunk.toString();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    const code = new Promise<number | null>((resolve) => child.once("close", resolve));
    const until = async (pattern: RegExp, times: number): Promise<void> => {
      const end = performance.now() + 60_000;
      const all = new RegExp(pattern.source, `${pattern.flags}g`);
      while ([...text.matchAll(all)].length < times) {
        if (performance.now() > end) throw new Error(`${pattern} did not come:\n${text}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    return { child, text: () => text, code, until };
  }

  [Symbol.dispose](): void {
    // Ranks are killed by the system when their launcher is.
    for (const child of this.#children) child.kill("SIGKILL");
    for (const name of this.#names) ip("netns", "del", name);
  }
}

function must(...args: string[]): void {
  const problem = ip(...args);
  if (problem !== undefined) throw new Error(`ip ${args.join(" ")}: ${problem}`);
}
