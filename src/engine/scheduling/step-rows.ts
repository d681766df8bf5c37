// The rows of a step, and their order.
import type { Sequence } from './sequence.js'

export interface StepRow {
  readonly sequence: Sequence
  readonly position: number
  readonly token: number
  readonly flags: number
}

/** Rows without an adapter, then those of each: a rank computes an adapter's rows together. The order changes no bit. */
export function byAdapter(rows: StepRow[]): StepRow[] {
  const place = ({ sequence }: StepRow) => sequence.adapter?.place ?? -1
  return rows.some((row) => row.sequence.adapter) ? rows.sort((a, b) => place(a) - place(b)) : rows
}
