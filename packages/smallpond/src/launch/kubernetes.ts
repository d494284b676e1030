// Executors as an indexed Job of Kubernetes, by `kubectl`: whoever has a cluster has it, with its
// credentials and plugins, and this package needs no client of its own.

import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { InputError } from "@open-infra/errors";
import type { Launched, Launcher, LaunchRequest } from "./launcher.ts";
import { ask, expectAnswer } from "./program.ts";

/** How Kubernetes starts executors. */
export interface KubernetesOptions {
  /**
   * Has Node and this package at the paths that the driver has them at, or `command` says where.
   */
  readonly image: string;
  /** The volume with the job's folder, mounted at the path that the driver has it at. */
  readonly volume: { readonly claim: string; readonly mountPath: string };
  readonly namespace?: string;
  /** Words to run an executor in the image. @default the driver's own; the job's JSON comes last */
  readonly command?: readonly string[];
  readonly count?: number;
  /** Requests and limits of a pod, as Kubernetes writes them. */
  readonly resources?: Readonly<Record<"requests" | "limits", Readonly<Record<string, string>>>>;
  /** Merged into the pod's `spec`: node selectors, tolerations, secrets. */
  readonly podSpec?: Readonly<Record<string, unknown>>;
  /** @default "kubectl" */
  readonly program?: string;
  /** @default 10 minutes */
  readonly startTimeoutMs?: number;
}

const minuteMs = 60_000;
const pollMs = 2_000;
const backoffLimit = 20;

/** See the head of this file. */
export function kubernetes(options: KubernetesOptions): Launcher {
  const { volume, namespace, count, program = "kubectl" } = options;
  if (!volume.mountPath.startsWith("/")) {
    throw new InputError("kubernetes: volume.mountPath", volume.mountPath, "an absolute path");
  }
  const kubectl = [program, ...(namespace === undefined ? [] : ["--namespace", namespace])];
  return {
    name: "kubernetes",
    startTimeoutMs: options.startTimeoutMs ?? 10 * minuteMs,
    ...(count !== undefined && { count }),
    launch: async (request) => {
      const manifest = jobManifest(options, request);
      const apply = [...kubectl, "apply", "-f", "-"];
      await expectAnswer("kubernetes", apply, JSON.stringify(manifest));
      return follow(kubectl, manifest.metadata.name);
    },
  };
}

interface Manifest {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly [field: string]: unknown;
}

/** The Job. */
export function jobManifest(options: KubernetesOptions, request: LaunchRequest): Manifest {
  const { image, volume, resources, podSpec = {} } = options;
  const plain = request.name
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, "-")
    .slice(0, 40);
  const name = `${plain.replace(/^-+|-+$/g, "")}-${randomBytes(3).toString("hex")}`;
  const json = request.command.at(-1) as string;
  const words = options.command === undefined ? request.command : [...options.command, json];
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name, labels: { app: "open-infra-smallpond" } },
    spec: {
      completions: request.count,
      parallelism: request.count,
      completionMode: "Indexed",
      backoffLimit,
      // Gone by itself, should the driver be killed.
      ttlSecondsAfterFinished: 600,
      template: {
        metadata: { labels: { app: "open-infra-smallpond" } },
        spec: {
          restartPolicy: "OnFailure",
          ...podSpec,
          containers: [
            {
              name: "executor",
              image,
              command: words,
              resources: resources ?? resourcesOf(request),
              volumeMounts: [{ name: "job", mountPath: volume.mountPath }],
            },
          ],
          volumes: [{ name: "job", persistentVolumeClaim: { claimName: volume.claim } }],
        },
      },
    },
  };
}

function resourcesOf({ cpus, memoryBytes }: LaunchRequest): object {
  const requests = {
    ...(cpus !== undefined && { cpu: String(cpus) }),
    ...(memoryBytes !== undefined && { memory: String(memoryBytes) }),
  };
  return { requests, limits: memoryBytes === undefined ? {} : { memory: String(memoryBytes) } };
}

function follow(kubectl: readonly string[], name: string): Launched {
  const ended = Promise.withResolvers<string>();
  let stopped = false;
  const describe = async (): Promise<string> => {
    const selector = `job-name=${name}`;
    const pods = await ask("kubernetes", [...kubectl, "get", "pods", "-l", selector]);
    const last = ["events", "--field-selector", `involvedObject.name=${name}`];
    const events = await ask("kubernetes", [...kubectl, "get", ...last]);
    const logs = await ask("kubernetes", [...kubectl, "logs", "-l", selector, "--tail=20"]);
    const said = [pods, events, logs].map(({ stdout, stderr }) => (stdout || stderr).trim());
    return `job ${name}: kubectl says\n${said.filter((text) => text !== "").join("\n")}`;
  };
  const poll = async (): Promise<void> => {
    const path = "jsonpath={.status.conditions[?(@.status=='True')].type}";
    while (!stopped) {
      await sleep(pollMs, undefined, { ref: false });
      const words = [...kubectl, "get", "job", name, "-o", path];
      const { code, stdout, stderr } = await ask("kubernetes", words).catch(() => ({
        code: 1,
        stdout: "",
        stderr: "",
      }));
      const over = code === 0 ? /Complete|Failed/.test(stdout) : /NotFound/.test(stderr);
      if (over) return ended.resolve(await describe());
    }
  };
  void poll();
  return {
    label: `Kubernetes job ${name}`,
    describe,
    ended: ended.promise,
    stop: async () => {
      stopped = true;
      await ask("kubernetes", [...kubectl, "delete", "job", name, "--wait=false"]).catch(() => {});
      ended.resolve("deleted");
    },
  };
}
