// Allocates addresses in a memory; the number of rows of its buffers.
import type { RunPlan } from '../protocol.js'

/** Allocates 64-byte-aligned addresses. Address 0 is never used; it means "none". */
export class Arena {
  bytes: number
  constructor(start = 64) {
    this.bytes = start
  }

  take(bytes: number): number {
    const at = this.bytes
    this.bytes += Math.ceil(bytes / 64) * 64
    return at
  }
}

/** Rows of a buffer: matmul writes whole groups of four tokens. */
export function bufferRows(plan: RunPlan): number {
  return Math.ceil(plan.stepRows / 4) * 4
}
