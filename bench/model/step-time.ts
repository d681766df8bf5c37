// A model of a decode step's time, calibrated on one rank and short contexts, for other rank counts, contexts and machines of several devices.
//
//   ms(ranks, context) = fixed + weights / w(ranks) + context * perToken / a(ranks) + collectives(ranks) * latency(ranks)
//
// fixed (launches, the coordinator) + weights: the line's value at context 0; perToken: its slope; a line for each variant, by least squares
// over its cells (on a GPU with the slope known: bytes at the rate of reading). w and a: how much faster `ranks` threads read and multiply than one, as probes measured (one device each: ranks times); a is less where
// ranks that share a latent do more together than one alone would (model/attention-work.ts).

export interface Calibration {
  readonly variant: string
  /** Milliseconds at context 0, of which `weightMs` are the time of reading the weights at the rate of the machine, and a cached token. */
  readonly baseMs: number
  readonly weightMs: number
  readonly perTokenMs: number
}

/** What changes with the rank count. */
export interface RankEffect {
  /** Times as fast as one rank, for what all ranks share: weights, and attention. */
  readonly weights: number
  readonly attention: number
  readonly collectives: number
  readonly collectiveMs: number
}

export interface CalibrationCell {
  readonly context: number
  readonly ms: number
}

/**
 * By relative least squares: a cell counts the same whatever its size. undefined: fewer than two contexts, or times that do not grow with
 * them, since noise hides what attention takes.
 */
export function calibrate(variant: string, cells: readonly CalibrationCell[], weightMs: number): Calibration | undefined {
  if (new Set(cells.map((c) => c.context)).size < 2) return undefined
  let [s, sx, sxx, sy, sxy] = [0, 0, 0, 0, 0]
  for (const { context, ms } of cells) {
    const w = 1 / ms ** 2
    s += w
    sx += w * context
    sxx += w * context ** 2
    sy += w * ms
    sxy += w * context * ms
  }
  const slope = (s * sxy - sx * sy) / (s * sxx - sx * sx)
  const baseMs = (sy - slope * sx) / s
  return slope > 0 && baseMs > 0 ? { variant, baseMs, weightMs: Math.min(weightMs, baseMs), perTokenMs: slope } : undefined
}

/** The same where a cached token's time is known (its bytes at the rate of reading): short contexts can't show it on a fast device. */
export function calibrateBase(variant: string, cells: readonly CalibrationCell[], weightMs: number, perTokenMs: number): Calibration | undefined {
  if (cells.length === 0) return undefined
  const weights = cells.map(({ ms }) => 1 / ms ** 2)
  const sum = cells.reduce((total, { context, ms }, i) => total + (weights[i] as number) * (ms - context * perTokenMs), 0)
  const baseMs = sum / weights.reduce((a, b) => a + b, 0)
  return baseMs > 0 ? { variant, baseMs, weightMs: Math.min(weightMs, baseMs), perTokenMs } : undefined
}

export function predict({ baseMs, weightMs, perTokenMs }: Calibration, context: number, effect: RankEffect): number {
  const { weights, attention, collectives, collectiveMs } = effect
  return baseMs - weightMs + weightMs / weights + (context * perTokenMs) / attention + collectives * collectiveMs
}
