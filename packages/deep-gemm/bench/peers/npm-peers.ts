// The peers from npm, installed in bench/peers: onnxruntime-node and jax-js.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { matrices } from "./matrices.ts";
import { matMulModel } from "./onnx-model.ts";
import type { PeerAdapter, Prepared } from "./peer.ts";
import type { Problem } from "./problem.ts";

const folder = createRequire(new URL("../../../../bench/peers/package.json", import.meta.url));
const install = "ONNXRUNTIME_NODE_INSTALL=skip npm install --prefix bench/peers";

/** A module of that folder and its version. */
async function load(name: string): Promise<{ readonly module: unknown; readonly version: string }> {
  const path = folder.resolve(name);
  const root = path.slice(0, path.lastIndexOf(name) + name.length);
  const { version } = folder(`${root}/package.json`) as { readonly version: string };
  return { module: await import(pathToFileURL(path).href), version };
}

interface OrtTensor {
  readonly data: Float32Array;
}
interface OrtSession {
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Readonly<Record<string, OrtTensor>>>;
  release(): Promise<void>;
}
interface Ort {
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<OrtSession>;
  };
  readonly Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => OrtTensor;
}

/** A model a matrix B, so that each is packed ahead as deployed models are. */
export const onnxRuntime: PeerAdapter = {
  name: "onnxruntime-node",
  dtypes: ["f32"],
  install,
  open: async (threads) => {
    const { module, version } = await load("onnxruntime-node");
    const ort = ((module as { default?: Ort }).default ?? module) as Ort;
    const prepare = async (problem: Problem): Promise<Prepared> => {
      const { m, n, k, copies } = problem;
      const { a, b } = matrices(problem);
      const sessions: OrtSession[] = [];
      for (let copy = 0; copy < copies; copy++) {
        const weights = (b as Float32Array).subarray(copy * n * k, (copy + 1) * n * k);
        const options = { intraOpNumThreads: threads, executionProviders: ["cpu"] };
        sessions.push(await ort.InferenceSession.create(matMulModel(weights, n, k), options));
      }
      const feeds = { a: new ort.Tensor("float32", a as Float32Array, [m, k]) };
      let last = new Float32Array();
      const call = async (copy: number): Promise<void> => {
        const { d } = await (sessions[copy] as OrtSession).run(feeds);
        last = (d as OrtTensor).data as Float32Array<ArrayBuffer>;
      };
      const free = (): void => {
        for (const session of sessions) void session.release();
      };
      return { variants: [{ name: "packed", call }], output: () => last, free };
    };
    return { version, prepare };
  },
};

interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  blockUntilReady(): Promise<unknown>;
  data(): Promise<Float32Array>;
  dispose(): void;
}
interface Jax {
  init(device: string): Promise<unknown>;
  defaultDevice(device: string): void;
  readonly numpy: {
    array(values: Float32Array): JaxArray;
    matmul(x: JaxArray, y: JaxArray): JaxArray;
    transpose(x: JaxArray): JaxArray;
  };
}

/** On WebAssembly, which chooses its threads by itself. */
export const jaxJs: PeerAdapter = {
  name: "jax-js",
  dtypes: ["f32"],
  install,
  maxMultiplyAdds: 6e9,
  open: async () => {
    const { module, version } = await load("@jax-js/jax");
    const jax = module as Jax;
    await jax.init("wasm");
    jax.defaultDevice("wasm");
    const np = jax.numpy;
    const prepare = (problem: Problem): Prepared => {
      const { m, n, k, copies } = problem;
      const { a, b } = matrices(problem);
      const x = np.array(a as Float32Array).reshape([m, k]);
      const weights = Array.from({ length: copies }, (_, copy) =>
        np.array((b as Float32Array).slice(copy * n * k, (copy + 1) * n * k)).reshape([n, k]),
      );
      let last: JaxArray | undefined;
      const call = async (copy: number): Promise<void> => {
        last?.dispose();
        last = np.matmul(x.ref, np.transpose((weights[copy] as JaxArray).ref));
        await last.blockUntilReady();
      };
      const free = (): void => {
        for (const array of [x, ...weights, last]) array?.dispose();
      };
      const output = async (): Promise<Float32Array> => (last as JaxArray).ref.data();
      return { variants: [{ name: "wasm", call }], output, free };
    };
    return { version, prepare };
  },
};
