// What runs a rank's part of the steps, whatever the backend.
import type { RankReport } from './protocol.js'

export interface RankRunner {
  /**
   * Runs the published step of this epoch. A CPU rank returns undefined when the step has ended; a GPU rank, which needs its event
   * loop, returns a promise. Throws or rejects with StepAborted, RankLate, or what went wrong.
   */
  run(epoch: number): Promise<void> | undefined
  /** What it really runs on. */
  readonly report: RankReport
  /** Access to a cache that lies on a device. Undefined: it lies in the rank's memory, where the coordinator reads it. */
  readonly cache?: DeviceCache
}

/** The cached pages of a rank on its device. The caller holds the pages it reads or writes. */
export interface DeviceCache {
  /** Writes random values to every row of the cache: for timing long contexts. */
  fill(): Promise<void>
  /** Whole pages of a layer, in the order of layoutPages. */
  read(layer: number, pages: readonly number[]): Promise<Uint8Array>
  write(layer: number, pages: readonly number[], bytes: Uint8Array): Promise<void>
}
