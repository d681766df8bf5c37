// The kernel set in WGSL: packed products, cache writes, and flash decoding (on tensor cores if the plan says so).
/// <reference types="@webgpu/types" />
import { combineParts } from '../../kernels/gpu/elementwise.js'
import type { Command, Dispatch, ProgramParts, StepSize } from '../../kernels/gpu/program.js'
import { ARGMAX_SLICES, argmaxRows } from '../../kernels/gpu/wgsl/argmax.js'
import { writeRows, writeWords } from '../../kernels/gpu/wgsl/cache-rows.js'
import { flashAttention } from '../../kernels/gpu/wgsl/flash-attention.js'
import { MATMUL_ROWS, packedMatmul } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { tensorAttention } from '../../kernels/gpu/wgsl/tensor-attention.js'
import { combineGroups, combineTensorParts, FEW_PARTS, packQueries } from '../../kernels/gpu/wgsl/tensor-parts.js'
import { packedQueryWidth, workgroupsOfParts } from '../../kernels/gpu/wgsl/tensor-shape.js'
import { type EntryPlan, entriesOfRound, type TensorPlan } from './attention-plan.js'
import type { EntryBuffers, GpuBuffers } from './buffers.js'
import type { CacheWrite, KernelSet, Product } from './kernel-set.js'
import type { GpuPlan } from './plan.js'
import { rawQueries } from './raw-queries.js'
import { TensorProducts } from './tensor-products.js'
import { uploadTiles } from './weights.js'

export class WgslKernels implements KernelSet {
  readonly #program: ProgramParts
  readonly #plan: GpuPlan
  readonly #b: GpuBuffers
  readonly #tensorProducts: TensorProducts | undefined

  constructor(program: ProgramParts, plan: GpuPlan, buffers: GpuBuffers) {
    this.#tensorProducts = plan.kernels.products === 'tiles' ? new TensorProducts(program, plan.stepRows, plan.kernels.pair) : undefined
    this.#program = program
    this.#plan = plan
    this.#b = buffers
  }

  async product(product: Product): Promise<Dispatch[]> {
    const { label, weights, tiles, x, y, rowSet = 'step', norm } = product
    if (tiles.length === 0) return []
    if (this.#tensorProducts) return this.#tensorProducts.product(product)
    const program = this.#program
    const [xStride = 1, yStride = 1] = [x.dims[0], y.dims[0]]
    const dims = program.uniform(Uint32Array.of(xStride, yStride, 0, 0))
    const buffers = [dims, program.count(rowSet), weights.buffer, uploadTiles(program, tiles), x.buffer, y.buffer, norm?.weight.buffer]
    const code = packedMatmul(this.#plan.weights, norm?.epsilon)
    const rowsOf = (step: StepSize) => (rowSet === 'selected' ? step.selected : step.rows)
    return [await program.wgsl(label, code, buffers, (step) => [tiles.length, Math.ceil(rowsOf(step) / MATMUL_ROWS), 1])]
  }

  async argmax(): Promise<Dispatch[]> {
    const { logits, greedy } = this.#b
    const code = argmaxRows(this.#plan.vocab)
    return [await this.#program.wgsl('argmax', code, [logits.buffer, greedy.buffer], ({ selected }) => [ARGMAX_SLICES, selected, 1])]
  }

  async writeCache(cache: GPUBuffer, writes: readonly CacheWrite[]): Promise<Dispatch[]> {
    const { format } = this.#plan
    const layouts = writes.map((write) => write.rows)
    const planes = layouts.reduce((sum, { planes }) => sum + planes, 0)
    const buffers = [this.#program.count('step'), this.#b.rows, this.#b.pages, cache, ...writes.map(({ x }) => x.buffer)]
    const words = Math.max(...layouts.map((row) => writeWords(row, format)))
    return [await this.#program.wgsl('write to cache', writeRows(layouts, format), buffers, ({ rows }) => [Math.ceil(words / 64), planes, rows])]
  }

  /** In groups of rows, so that the parts of one group fit. */
  async attend(cache: GPUBuffer): Promise<Command[]> {
    const { a, flash, rowGroup, stepRows, tensor } = this.#plan
    if (flash.groups.length === 0) return []
    const b = this.#b
    const program = this.#program
    const queries = a.absorbed ? b.absorbed : b.queries
    const ropeQueries = a.sharedRopeDim > 0 ? b.queries.buffer : undefined
    if (tensor) return this.#attendOnTensorCores(cache, tensor, queries.buffer, ropeQueries)
    const dispatches: Dispatch[] = []
    const code = flashAttention(flash)
    for (let first = 0; first < stepRows; first += rowGroup) {
      const rowsOf = (n: number) => Math.max(0, Math.min(rowGroup, n - first))
      const start = program.uniform(Uint32Array.of(first, 0, 0, 0))
      const buffers = [b.rows, b.pages, queries.buffer, ropeQueries, cache, b.partSums.buffer, b.partStates.buffer, start]
      dispatches.push(await program.wgsl('attention', code, buffers, ({ parts, rows }) => [parts, flash.groups.length, rowsOf(rows)]))
      const constants = { parts: flash.parts, heads: flash.outHeads, firstRow: first }
      const out = { ...b.context, offset: first * flash.outHeads * flash.valueWidth * 4 }
      const size = [flash.valueWidth, flash.outHeads, 'rows'] as const
      const combine = await program.gpuJs('combine parts', combineParts, constants, [b.partSums, b.partStates, b.parts], out, size)
      dispatches.push({ ...combine, groups: (step) => combine.groups({ ...step, rows: rowsOf(step.rows) }) })
    }
    return dispatches
  }

  async #attendOnTensorCores(cache: GPUBuffer, tensor: TensorPlan, queries: GPUBuffer, ropeQueries: GPUBuffer | undefined): Promise<Command[]> {
    const b = this.#b
    const { shape, single, prompt } = tensor
    const heads = shape.slots.length
    const packing = [this.#program.count('step'), b.slots, queries, ropeQueries, b.packedQueries]
    const groups = Math.ceil(packedQueryWidth(shape) / 2 / 64)
    // Raw ones are packed by the product and the dispatch that make them.
    const raw = rawQueries(this.#plan, b) !== undefined
    return [
      ...(raw ? [] : [await this.#program.wgsl('pack queries', packQueries(shape), packing, ({ rows }) => [groups, heads, rows])]),
      ...(await this.#attendTo(cache, tensor, single, b.singles, ({ singles }) => singles)),
      ...(prompt ? await this.#attendTo(cache, tensor, prompt, b.prompts, ({ prompts }) => prompts) : []),
    ]
  }

  /** Entries of one kind, round by round: as many at once as the buffers of parts have room for. */
  async #attendTo(
    cache: GPUBuffer,
    tensor: TensorPlan,
    plan: EntryPlan,
    { entries, sizes }: EntryBuffers,
    entriesOf: (step: StepSize) => number,
  ): Promise<Command[]> {
    const b = this.#b
    const program = this.#program
    const { shape } = tensor
    const attention = tensorAttention(shape, plan.tiling, plan.rows)
    const rounds: Dispatch[][] = []
    const sizesOf = (step: StepSize) => ({ most: entriesOfRound(tensor, plan, step.parts), entries: entriesOf(step) })
    const maxRounds = Math.ceil(this.#plan.stepRows / plan.rows / entriesOfRound(tensor, plan, shape.parts))
    for (let k = 0; k < maxRounds; k++) {
      const round = program.uniform(Uint32Array.of(k, 0, 0, 0))
      const inRound = (step: StepSize) => {
        const { most, entries } = sizesOf(step)
        return Math.max(0, Math.min(most, entries - k * most))
      }
      const attending = [b.rows, entries, b.pages, b.packedQueries, cache, b.partSums.buffer, b.partStates.buffer, round, sizes]
      const dispatches = [
        await program.wgsl('attention', attention, attending, (step) => {
          const others = shape.groups.length * inRound(step)
          return [others === 0 ? 0 : workgroupsOfParts(plan.tiling, step.parts, others), shape.groups.length, inRound(step)]
        }),
      ]
      const combining = [b.rows, entries, b.partSums.buffer, b.partStates.buffer, b.context.buffer, round, sizes]
      for (const few of [true, false]) {
        const [heads, columns] = combineGroups(shape, few)
        const groups = (step: StepSize): [number, number, number] =>
          few === step.parts <= FEW_PARTS ? [heads, columns, plan.rows * inRound(step)] : [0, 0, 0]
        if (few || shape.parts > FEW_PARTS)
          dispatches.push(await program.wgsl('combine parts', combineTensorParts(shape, plan.rows, few), combining, groups))
      }
      rounds.push(dispatches)
    }
    const count = (step: StepSize) => {
      const { most, entries } = sizesOf(step)
      return Math.ceil(entries / most)
    }
    return [{ label: 'attention', origin: 'rounds', rounds, count }]
  }
}
