// Copies of cached rows from page to page, before a step, for sequences that share part of a page.
/// <reference types="@webgpu/types" />
import type { Program } from '../../kernels/gpu/program.js'
import { cacheBytes } from '../../kernels/gpu/wgsl/cache-rows.js'
import { cacheWidth } from '../layout/attention-plan.js'
import { COPY } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { GpuBuffers } from './buffers.js'
import type { GpuPlan } from './plan.js'

export class CacheCopies {
  readonly #plan: GpuPlan
  readonly #b: GpuBuffers
  /** Rows on their way: a buffer cannot be copied to itself. */
  readonly #between: GPUBuffer

  constructor(program: Program, plan: GpuPlan, buffers: GpuBuffers) {
    const { a, lanes, regions } = plan
    this.#plan = plan
    this.#b = buffers
    this.#between = program.buffer(PAGE_TOKENS * 4 * Math.max(regions.streamRow, cacheWidth(a.sharedRopeDim), 2 * (a.factors?.rank ?? 0) * lanes))
  }

  record(encoder: GPUCommandEncoder, step: StepReader): void {
    const { a, regions, streamCount, format, lanes } = this.#plan
    const scalar = cacheBytes(format)
    for (let i = 0; i < step.copies; i++) {
      const from = step.copy(i, COPY.from)
      const to = step.copy(i, COPY.to)
      const rows = step.copy(i, COPY.rows)
      const copy = (cache: GPUBuffer, region: number, width: number) => {
        const at = (page: number) => (region + page * PAGE_TOKENS * width) * scalar
        if (width === 0) return
        encoder.copyBufferToBuffer(cache, at(from), this.#between, 0, rows * width * scalar)
        encoder.copyBufferToBuffer(this.#between, 0, cache, at(to), rows * width * scalar)
      }
      for (const cache of this.#b.caches) {
        for (let k = 0; k < streamCount; k++) copy(cache, k * regions.stream, regions.streamRow)
        copy(cache, regions.rope, cacheWidth(a.sharedRopeDim))
        if (a.factors) copy(cache, regions.coefficients, 2 * a.factors.rank * lanes)
      }
    }
  }
}
