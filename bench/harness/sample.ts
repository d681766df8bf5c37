// Repeated measurements of one thing.
import { quantile } from '../measure.js'

export interface Sample {
  readonly median: number
  readonly p10: number
  readonly p90: number
  readonly n: number
}

/** Above this spread, (p90 - p10) / median, a median is not to be trusted. */
export const SPREAD_BOUND = 0.3

/** Returns undefined without values. */
export function sampleOf(values: readonly number[]): Sample | undefined {
  if (values.length === 0) return undefined
  return { median: quantile(values, 0.5), p10: quantile(values, 0.1), p90: quantile(values, 0.9), n: values.length }
}

export function isSample(cell: unknown): cell is Sample {
  return typeof cell === 'object' && cell !== null && 'median' in cell
}

/** The coordinates of a sample in a picture. */
export function plotted(sample: Sample): { readonly y: number; readonly low: number; readonly high: number; readonly trusted: boolean } {
  return { y: sample.median, low: sample.p10, high: sample.p90, trusted: isTrusted(sample) }
}

export function isTrusted({ median, p10, p90 }: Sample): boolean {
  return p90 - p10 <= SPREAD_BOUND * Math.abs(median)
}
