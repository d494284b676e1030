// Sizes and settings: the original's values, computed from its formulas.
import {
  Config,
  getCombineConfig,
  getDispatchConfig,
  getLowLatencyRdmaSizeHint,
} from "@open-infra/deep-ep";
import { describe, expect, it } from "vitest";

describe("buffer-size hints", () => {
  it("of the low-latency mode", () => {
    const hint = (tokens: number, hidden: number, numRanks: number, numExperts: number): number =>
      getLowLatencyRdmaSizeHint({
        numMaxDispatchTokensPerRank: tokens,
        hidden,
        numRanks,
        numExperts,
      });
    expect(hint(128, 7168, 8, 288)).toBe(2_146_961_792);
    expect(hint(128, 7168, 8, 256)).toBe(1_908_410_496);
    expect(hint(128, 7168, 64, 256)).toBe(1_908_410_496);
    expect(hint(16, 5120, 4, 256)).toBe(170_395_776);
  });

  it("of the normal mode", () => {
    const bytes = 7168 * 2;
    expect(getDispatchConfig(8).getNvlBufferSizeHint(bytes, 8)).toBe(335_709_824);
    expect(getDispatchConfig(8).getRdmaBufferSizeHint(bytes, 8)).toBe(0);
    expect(getDispatchConfig(16).getNvlBufferSizeHint(bytes, 16)).toBe(377_673_984);
    expect(getDispatchConfig(16).getRdmaBufferSizeHint(bytes, 16)).toBe(91_887_744);
    expect(getCombineConfig(16).getRdmaBufferSizeHint(bytes, 16)).toBe(86_637_184);
    expect(getDispatchConfig(32).getNvlBufferSizeHint(bytes, 32)).toBe(377_675_264);
    expect(getDispatchConfig(32).getRdmaBufferSizeHint(bytes, 32)).toBe(168_023_680);
    expect(getDispatchConfig(64).getNvlBufferSizeHint(bytes, 64)).toBe(377_677_824);
    expect(getDispatchConfig(64).getRdmaBufferSizeHint(bytes, 64)).toBe(336_047_360);
  });
});

describe("settings", () => {
  it("follow the original's table, and its next entry between", () => {
    expect(getDispatchConfig(2)).toMatchObject({ numWorkers: 20, nvlSend: 24, nvlRecv: 256 });
    expect(getDispatchConfig(144)).toMatchObject({ nvlSend: 32, nvlRecv: 720, rdmaSend: 12 });
    expect(getCombineConfig(96)).toMatchObject({ nvlSend: 1, nvlRecv: 480, rdmaSend: 8 });
    expect(getDispatchConfig(5)).toEqual(getDispatchConfig(8));
    expect(getDispatchConfig(512)).toEqual(getDispatchConfig(160));
  });

  it("round rdmaRecv up to whole chunks and refuse what the original refuses", () => {
    expect(getDispatchConfig(16).rdmaRecv).toBe(140);
    expect(() => new Config({ nvlSend: 256, nvlRecv: 256 })).toThrow(/less than nvlRecv, 256/);
    expect(() => new Config({ rdmaSend: 100, rdmaRecv: 100 })).toThrow(/at most half of rdmaRecv/);
    expect(() => new Config({ numWorkers: 0 })).toThrow(/numWorkers is 0/);
  });
});
