// Writes what a step needs to a rank's device: embeddings, rope tables, block tables, lengths. Owns the host's copies, made once; knows
// no kernels.
/// <reference types="@webgpu/types" />

import type { Program, Shaped } from '../../kernels/gpu/program.js'
import { ROW } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { StepResults } from '../sampling/step-results.js'
import type { TokenInputs } from '../token-inputs.js'
import type { GpuBuffers } from './buffers.js'
import type { StepTables } from './kernel-set.js'
import type { GpuPlan } from './plan.js'

/** Parts of the longest row: of the step, and of the same rows one token later. */
export interface StepParts {
  readonly parts: number
  readonly nextParts: number
}

export class GpuInputs implements StepTables {
  readonly #queue: GPUQueue
  readonly #plan: GpuPlan
  readonly #b: GpuBuffers
  readonly #step: StepReader
  readonly #results: StepResults
  readonly #tokens: TokenInputs
  readonly #pagesPerSlot: number
  /** [rows, embed], [rows, ropeDim], [rows, 4], [rows] */
  readonly #residual: Float32Array<ArrayBuffer>
  readonly #rope: Float32Array<ArrayBuffer>
  readonly #rows: Uint32Array<ArrayBuffer>
  readonly #parts: Float32Array<ArrayBuffer>
  /** Block tables as they are on the device. */
  readonly #tables: Uint32Array<ArrayBuffer>
  readonly pageTable: Shaped
  readonly rowTable: Shaped
  readonly #pageFloats: Float32Array<ArrayBuffer>
  readonly #rowFloats: Float32Array<ArrayBuffer>
  /** Bytes of the cache that all steps have read. */
  cacheBytesRead = 0

  constructor(
    program: Program,
    plan: GpuPlan,
    buffers: GpuBuffers,
    step: StepReader,
    results: StepResults,
    tokens: TokenInputs,
    tables: { readonly slots: number; readonly pagesPerSlot: number },
  ) {
    this.#queue = program.device.queue
    this.#plan = plan
    this.#b = buffers
    this.#step = step
    this.#results = results
    this.#tokens = tokens
    this.#pagesPerSlot = tables.pagesPerSlot
    this.#residual = new Float32Array(plan.stepRows * plan.shape.embed)
    this.#rope = new Float32Array(plan.stepRows * plan.a.ropeDim)
    this.#rows = new Uint32Array(plan.stepRows * 4)
    this.#parts = new Float32Array(plan.stepRows)
    this.#tables = new Uint32Array(tables.slots * tables.pagesPerSlot)
    this.#pageFloats = new Float32Array(plan.kernels.floats ? this.#tables.length : 0)
    this.#rowFloats = new Float32Array(plan.kernels.floats ? plan.stepRows * 2 : 0)
    this.pageTable = program.tensor(this.#pageFloats.length)
    this.rowTable = program.tensor(2, this.#rowFloats.length / 2)
  }

  /** Writes what the rows of the open step need. */
  write(rows: number): StepParts {
    const { embed } = this.#plan.shape
    const { ropeDim } = this.#plan.a
    let parts = 1
    let nextParts = 1
    for (let t = 0; t < rows; t++) {
      const position = this.#step.int(t, ROW.position)
      this.#residual.set(this.#tokens.embedding(this.#results.token(t)).row(0), t * embed)
      this.#tokens.rope(position, this.#rope.subarray(t * ropeDim))
      const own = this.#writeRow(t, this.#step.int(t, ROW.slot), position + 1)
      parts = Math.max(parts, own)
      nextParts = Math.max(nextParts, own, this.#plan.partsOf(position + 2).parts)
    }
    const queue = this.#queue
    queue.writeBuffer(this.#b.residual.buffer, 0, this.#residual, 0, rows * embed)
    if (ropeDim > 0) queue.writeBuffer(this.#b.rope.buffer, 0, this.#rope, 0, rows * ropeDim)
    queue.writeBuffer(this.#b.rows, 0, this.#rows, 0, rows * 4)
    queue.writeBuffer(this.#b.parts.buffer, 0, this.#parts, 0, rows)
    if (this.#rowFloats.length > 0) queue.writeBuffer(this.rowTable.buffer, 0, this.#rowFloats, 0, 2 * rows)
    return { parts, nextParts }
  }

  /** Row of the cache that row t of the step writes. */
  cacheRow(t: number): number {
    const position = (this.#rows[4 * t + 1] as number) - 1
    const page = this.#tables[(this.#rows[4 * t] as number) + Math.floor(position / PAGE_TOKENS)] as number
    return page * PAGE_TOKENS + (position % PAGE_TOKENS)
  }

  /** Returns the row's parts. */
  #writeRow(t: number, slot: number, length: number): number {
    const { pages, parts } = this.#plan.partsOf(length)
    const at = t * 4
    this.#rows[at] = slot * this.#pagesPerSlot
    this.#rows[at + 1] = length
    this.#rows[at + 2] = pages
    this.#rows[at + 3] = parts
    this.#parts[t] = parts
    if (this.#plan.kernels.floats) {
      this.#rowFloats[2 * t] = this.#rows[at] as number
      this.#rowFloats[2 * t + 1] = length
    }
    this.#updateTable(slot, Math.ceil(length / PAGE_TOKENS))
    this.cacheBytesRead += length * this.#plan.cacheBytesPerToken
    return parts
  }

  #updateTable(slot: number, pages: number): void {
    const first = slot * this.#pagesPerSlot
    let from = -1
    let to = -1
    for (let i = 0; i < pages; i++) {
      const page = this.#step.page(slot, i)
      if (this.#tables[first + i] === page) continue
      this.#tables[first + i] = page
      if (from < 0) from = i
      to = i + 1
    }
    if (from < 0) return
    this.#queue.writeBuffer(this.#b.pages, (first + from) * 4, this.#tables, first + from, to - from)
    if (!this.#plan.kernels.floats) return
    this.#pageFloats.set(this.#tables.subarray(first + from, first + to), first + from)
    this.#queue.writeBuffer(this.pageTable.buffer, (first + from) * 4, this.#pageFloats, first + from, to - from)
  }
}
