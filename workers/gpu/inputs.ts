// Writes what a step needs to a rank's device: embeddings, rope tables, block tables, lengths. Owns the host's copies, made once; knows
// no kernels.
/// <reference types="@webgpu/types" />

import type { Program, Shaped, StepSize } from '../../kernels/gpu/program.js'
import { ROW } from '../mailbox/mailbox-layout.js'
import type { StepReader } from '../mailbox/step-buffer.js'
import { PAGE_TOKENS } from '../protocol.js'
import type { StepResults } from '../sampling/step-results.js'
import type { TokenInputs } from '../token-inputs.js'
import { type EntryPlan, entriesOfRound, roomForParts } from './attention-plan.js'
import type { EntryBuffers, GpuBuffers } from './buffers.js'
import { Embeddings } from './embeddings.js'
import type { StepTables } from './kernel-set.js'
import type { GpuPlan } from './plan.js'
import { RopeTable } from './rope-table.js'

/** What a step's dispatches follow from, and what those of the next step do where it has as many rows of the same sequences. */
export interface StepParts {
  readonly now: AttentionSize
  readonly next: AttentionSize
}

export type AttentionSize = Pick<StepSize, 'parts' | 'singles' | 'prompts'>

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
  /** In row order, if there is a copy; and those of a step, as they go to the device. */
  readonly #embeddings: Embeddings | undefined
  readonly #embedded: Uint16Array<ArrayBuffer>
  readonly #rope: Float32Array<ArrayBuffer>
  readonly #ropes: RopeTable
  readonly #rows: Uint32Array<ArrayBuffer>
  readonly #parts: Float32Array<ArrayBuffer>
  /** [entries, 4] */
  readonly #entries: Uint32Array<ArrayBuffer>
  /** The last table that was compared in this step: rows of a prompt share theirs. */
  #tableSlot = -1
  #tablePages = 0
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
    embeddings: Embeddings | undefined,
  ) {
    this.#queue = program.device.queue
    this.#plan = plan
    this.#b = buffers
    this.#step = step
    this.#results = results
    this.#tokens = tokens
    this.#pagesPerSlot = tables.pagesPerSlot
    this.#residual = new Float32Array(embeddings ? 0 : plan.stepRows * plan.shape.embed)
    this.#embedded = new Uint16Array(embeddings ? plan.stepRows * 2 * Embeddings.words(plan.shape.embed) : 0)
    this.#embeddings = embeddings
    this.#rope = new Float32Array(plan.stepRows * plan.a.ropeDim)
    this.#ropes = new RopeTable(tokens, plan.a.ropeDim)
    this.#rows = new Uint32Array(plan.stepRows * 4)
    this.#parts = new Float32Array(plan.stepRows)
    this.#entries = new Uint32Array(plan.stepRows * 4)
    this.#tables = new Uint32Array(tables.slots * tables.pagesPerSlot)
    this.#pageFloats = new Float32Array(plan.kernels.floats ? this.#tables.length : 0)
    this.#rowFloats = new Float32Array(plan.kernels.floats ? plan.stepRows * 2 : 0)
    this.pageTable = program.tensor(this.#pageFloats.length)
    this.rowTable = program.tensor(2, this.#rowFloats.length / 2)
  }

  /** Embeddings are uploaded as bf16. */
  get widens(): boolean {
    return this.#embeddings !== undefined
  }

  /** Writes what the rows of the open step need. */
  write(rows: number): StepParts {
    const { embed } = this.#plan.shape
    const { ropeDim } = this.#plan.a
    let parts = 1
    let nextParts = 1
    let longest = 1
    this.#tableSlot = -1
    for (let t = 0; t < rows; t++) {
      const position = this.#step.int(t, ROW.position)
      const token = this.#results.token(t)
      if (this.#embeddings) this.#embeddings.copy(token, this.#embedded, t)
      else this.#residual.set(this.#tokens.embedding(token).row(0), t * embed)
      this.#ropes.write(position, this.#rope, t)
      const own = this.#writeRow(t, this.#step.int(t, ROW.slot), position + 1)
      parts = Math.max(parts, own)
      nextParts = Math.max(nextParts, own, this.#plan.partsOf(position + 2).parts)
      longest = Math.max(longest, position + 1)
    }
    const queue = this.#queue
    if (this.#embeddings) queue.writeBuffer(this.#b.embeddings, 0, this.#embedded, 0, rows * 2 * Embeddings.words(embed))
    else queue.writeBuffer(this.#b.residual.buffer, 0, this.#residual, 0, rows * embed)
    if (ropeDim > 0) queue.writeBuffer(this.#b.rope.buffer, 0, this.#rope, 0, rows * ropeDim)
    queue.writeBuffer(this.#b.rows, 0, this.#rows, 0, rows * 4)
    queue.writeBuffer(this.#b.parts.buffer, 0, this.#parts, 0, rows)
    if (this.#rowFloats.length > 0) queue.writeBuffer(this.rowTable.buffer, 0, this.#rowFloats, 0, 2 * rows)
    const entries = this.#writeEntries(rows, parts)
    // A prompt goes on after this step's rows.
    const later = entries.prompts === 0 ? nextParts : Math.max(nextParts, this.#plan.partsOf(longest + rows).parts)
    return { now: { parts, ...entries }, next: { parts: later, ...entries } }
  }

  /** Groups consecutive rows of one sequence whose contexts are cut alike into entries of a prompt; all other rows are single. */
  #writeEntries(rows: number, parts: number): { readonly singles: number; readonly prompts: number } {
    const { tensor } = this.#plan
    if (!tensor) return { singles: rows, prompts: 0 }
    const together = tensor.prompt?.rows ?? rows + 1
    const singles: number[] = []
    const prompts: number[] = []
    for (let t = 0; t < rows; ) {
      if (this.#goTogether(t, t + together, rows)) {
        prompts.push(t)
        t += together
      } else singles.push(t++)
    }
    this.#writeKind(this.#b.singles, tensor.single, singles, parts)
    if (tensor.prompt) this.#writeKind(this.#b.prompts, tensor.prompt, prompts, parts)
    return { singles: singles.length, prompts: prompts.length }
  }

  #writeKind({ entries, sizes }: EntryBuffers, plan: EntryPlan, firsts: readonly number[], parts: number): void {
    const { tensor } = this.#plan
    if (!tensor || firsts.length === 0) return
    for (const [i, first] of firsts.entries()) this.#entries.set([first, plan.rows, 0, 0], i * 4)
    this.#queue.writeBuffer(entries, 0, this.#entries, 0, firsts.length * 4)
    this.#queue.writeBuffer(sizes, 0, Uint32Array.of(entriesOfRound(tensor, plan, parts), roomForParts(tensor, parts), firsts.length, 0))
  }

  /** Rows from..to are of one sequence, at ascending positions, with parts of the same size. */
  #goTogether(from: number, to: number, rows: number): boolean {
    if (to > rows) return false
    for (let t = from + 1; t < to; t++) {
      const at = 4 * t
      const [table, length, pages] = [this.#rows[at], this.#rows[at + 1] as number, this.#rows[at + 2]]
      if (table !== this.#rows[at - 4] || length !== (this.#rows[at - 3] as number) + 1 || pages !== this.#rows[at - 2]) return false
    }
    return true
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
    if (slot === this.#tableSlot && pages <= this.#tablePages) return
    this.#tableSlot = slot
    this.#tablePages = pages
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
