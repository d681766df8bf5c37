// The floor of a measurement: the least time that its bytes and its operations can take on this machine. Rates come from probes.
// A probe is no bound by itself: a kernel beats it where data stays in a cache, or where other processes slow the probe down.
// So a rate is raised to the fastest that any measured cell reached, and no floor is above a measured time.

export interface FloorRates {
  /** GB/s of reading; undefined: reading does not count here. */
  readonly read?: number
  /** GFLOP/s of multiply-adds in registers; undefined: arithmetic does not count here. */
  readonly multiply?: number
}

/** What one measured cell did, all threads together. */
export interface Work {
  readonly bytes?: number
  /** Floating-point operations: a multiply-add counts two. */
  readonly operations?: number
}

export interface MeasuredWork extends Work {
  /** Milliseconds of each run of it. */
  readonly ms: readonly number[]
}

/** Milliseconds: bytes at the rate of reading, or operations at the rate of multiplying, whichever takes longer. */
export function floorMs({ bytes = 0, operations = 0 }: Work, { read, multiply }: FloorRates): number {
  return Math.max(read === undefined ? 0 : bytes / read / 1e6, multiply === undefined ? 0 : operations / multiply / 1e6)
}

/** The probed rates, raised to those that the fastest run of any cell reached: floorMs(cell, rates) <= each of its times. */
export function reachedRates(probed: FloorRates, measured: readonly MeasuredWork[]): FloorRates {
  const fastest = (of: 'bytes' | 'operations', rate: number) =>
    measured.reduce((most, { ms, ...work }) => Math.max(most, ...ms.map((t) => (work[of] ?? 0) / t / 1e6)), rate)
  return {
    ...(probed.read !== undefined && { read: fastest('bytes', probed.read) }),
    ...(probed.multiply !== undefined && { multiply: fastest('operations', probed.multiply) }),
  }
}

/** A rate as the floor's sentence has it, with the probe's own where the kernels were faster. */
export function rateText(of: keyof FloorRates, probed: FloorRates, used: FloorRates): string {
  const [unit, digits] = of === 'read' ? ['GB/s', 1] : ['GFLOP/s', 0]
  const [probe, rate] = [probed[of] ?? 0, used[of] ?? 0]
  return `${rate.toFixed(digits)} ${unit}${rate > probe ? ` (reached by the kernels; the probe measured ${probe.toFixed(digits)})` : ''}`
}
