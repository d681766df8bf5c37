// The dispatches of one layer on a rank's device, in order and in three segments: up to the heads' outputs, up to the projected
// output, up to the MLP's. Between segments ranks exchange partials; at one rank nothing leaves the device. Which dispatches a model
// has follows from its shape. Owns no step.
/// <reference types="@webgpu/types" />
import {
  addPartials,
  arrangeCoefficients,
  combineFactors,
  combineParts,
  gateWith,
  normalize,
  normalizeGroups,
  rotate,
  sumHeads,
  sumSquares,
  swiglu,
} from '../../kernels/gpu/elementwise.js'
import type { Dispatch, Program, RowSet, Shaped } from '../../kernels/gpu/program.js'
import { type RowWrite, writeRows } from '../../kernels/gpu/wgsl/cache-rows.js'
import { flashAttention } from '../../kernels/gpu/wgsl/flash-attention.js'
import { MATMUL_ROWS, packedMatmul } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { combineGroups, combineTensorParts, packedQueryWidth, packQueries, tensorAttention } from '../../kernels/gpu/wgsl/tensor-attention.js'
import { cacheWidth } from '../attention-plan.js'
import { SHARDS } from '../protocol.js'
import { CHUNKS, type GpuBuffers } from './gpu-buffers.js'
import type { GpuPlan } from './gpu-plan.js'
import { uploadTiles } from './gpu-weights.js'

export interface LayerSegments {
  /** From the residual to the heads' outputs of each own shard. */
  readonly attention: readonly Dispatch[]
  /** To each own shard's partial of the projected output. */
  readonly output: readonly Dispatch[]
  /** To each own shard's partial of the MLP. */
  readonly mlp: readonly Dispatch[]
  /** Adds the MLP's partials to the residual. */
  readonly end: readonly Dispatch[]
}

/** Norms up to this width are one dispatch. */
const SHORT_NORM = 256

export class LayerBuilder {
  readonly #program: Program
  readonly #plan: GpuPlan
  readonly #b: GpuBuffers

  constructor(program: Program, plan: GpuPlan, buffers: GpuBuffers) {
    this.#program = program
    this.#plan = plan
    this.#b = buffers
  }

  /** The norm of columns offset..offset+n-1 of x. */
  async norm(x: Shaped, offset: number, n: number, weight: Shaped, out: Shaped, rowSet: RowSet = 'step'): Promise<Dispatch[]> {
    const program = this.#program
    if (n <= SHORT_NORM) {
      const grouped = { ...weight, dims: [n, 1] }
      return [await program.gpuJs('norm', normalizeGroups, { n, offset }, [x, grouped], out, [n, 1, 'rows'], rowSet)]
    }
    const each = Math.ceil(n / CHUNKS)
    return [
      await program.gpuJs('sum of squares', sumSquares, { n, offset, each }, [x], this.#b.squares, [CHUNKS, 'rows'], rowSet),
      await program.gpuJs('norm', normalize, { n, offset, chunks: CHUNKS }, [x, this.#b.squares, weight], out, [n, 'rows'], rowSet),
    ]
  }

  /** Products of tiles with rows of x, normed on the way in where a norm's weight is given; y may have planes, at places that the tiles say. */
  async product(
    name: string,
    weights: GPUBuffer,
    tiles: readonly (readonly number[])[],
    x: Shaped,
    y: Shaped,
    rowSet: RowSet = 'step',
    norm?: Shaped,
  ): Promise<Dispatch[]> {
    if (tiles.length === 0) return []
    const program = this.#program
    const [xStride = 1, yStride = 1] = [x.dims[0], y.dims[0]]
    const buffers = [
      program.uniform(Uint32Array.of(xStride, yStride, 0, 0)),
      program.count(rowSet),
      weights,
      uploadTiles(program, tiles),
      x.buffer,
      y.buffer,
      norm?.buffer,
    ]
    const code = packedMatmul(this.#plan.weights, norm !== undefined)
    return [await program.wgsl(name, code, buffers, (rows) => [tiles.length, Math.ceil(rows / MATMUL_ROWS), 1], rowSet)]
  }

  async build(index: number, weights: GPUBuffer, norms: { input: Shaped; mlp: Shaped; query: Shaped; streams: Shaped }): Promise<LayerSegments> {
    const { a, own, shape } = this.#plan
    const b = this.#b
    const layer = this.#plan.layers[index] as GpuPlan['layers'][number]
    const { tiles } = layer
    const cache = b.caches[index] as GPUBuffer
    return {
      attention: [
        ...(await this.product('inputs', weights, tiles.inputs, b.residual, b.inputs, 'step', norms.input)),
        ...(await this.#queries(weights, tiles.queryB, norms.query)),
        ...(await this.#cacheRows(cache, norms.streams)),
        ...(a.absorbed ? await this.product('keyUp', weights, tiles.keyUp, b.queries, b.absorbed) : []),
        ...(await this.#attend(cache)),
        ...(a.absorbed ? await this.product('valueUp', weights, tiles.valueUp, b.context, b.values) : []),
      ],
      output: [
        ...(await this.#segments()),
        ...(await this.product('attentionOut', weights, tiles.attentionOut, a.gated ? b.gated : b.segments, b.attentionOut)),
      ],
      mlp: [
        await this.#program.gpuJs('add attention', addPartials, {}, [b.residual, b.attentionOut], b.middle, [shape.embed, 'rows']),
        ...(await this.product('gateUp', weights, tiles.gateUp, b.middle, b.gateUp, 'step', norms.mlp)),
        await this.#program.gpuJs('swiglu', swiglu, { width: this.#plan.mlpWidth }, [b.gateUp], b.activated, [
          this.#plan.mlpWidth,
          own.length,
          'rows',
        ]),
        ...(await this.product('down', weights, tiles.down, b.activated, b.mlp)),
      ],
      end: [await this.#program.gpuJs('add MLP', addPartials, {}, [b.middle, b.mlp], b.residual, [shape.embed, 'rows'])],
    }
  }

  /** Queries of this rank's heads, rotated: [heads][nope padded, rope padded]. */
  async #queries(weights: GPUBuffer, tiles: readonly (readonly number[])[], norm: Shaped): Promise<Dispatch[]> {
    const { a, columns, heads, headStart } = this.#plan
    const b = this.#b
    const program = this.#program
    const width = a.nopeDim + a.ropeDim
    const paddedNope = cacheWidth(a.nopeDim)
    const paddedWidth = paddedNope + cacheWidth(a.ropeDim)
    const fromLatent = a.queryRank > 0 && !a.factors
    const dispatches: Dispatch[] = []
    if (a.factors) {
      const { queryRank } = a.factors
      const vectors = { offset: columns.queryA, stride: width, nope: 0, paddedNope: 0, vectors: 1, half: a.ropeDim / 2, rest: width }
      dispatches.push(await program.gpuJs('rope of query vectors', rotate, vectors, [b.inputs, b.rope], b.latent, [width, queryRank, 'rows']))
      const combine = { offset: columns.queryB + headStart * queryRank, rank: queryRank, width }
      dispatches.push(
        await program.gpuJs('queries of factors', combineFactors, combine, [b.inputs, b.latent], b.queries, [paddedWidth, heads, 'rows']),
      )
      return dispatches
    }
    let source = b.inputs
    let offset = columns.queryB
    if (fromLatent) {
      dispatches.push(...(await this.product('queryB', weights, tiles, b.inputs, b.rawQueries, 'step', a.queryNormed ? norm : undefined)))
      source = b.rawQueries
      offset = 0
    }
    const constants = {
      offset: offset + headStart * width,
      stride: width,
      nope: a.nopeDim,
      paddedNope,
      vectors: 1,
      half: a.ropeDim / 2,
      rest: a.ropeDim,
    }
    dispatches.push(await program.gpuJs('rope of queries', rotate, constants, [source, b.rope], b.queries, [paddedWidth, heads, 'rows']))
    return dispatches
  }

  /** What the step's tokens write to the cache. */
  async #cacheRows(cache: GPUBuffer, norm: Shaped): Promise<Dispatch[]> {
    const { a, columns, regions, streamCount } = this.#plan
    const b = this.#b
    const program = this.#program
    const half = a.ropeDim / 2
    const dispatches: Dispatch[] = []
    if (streamCount > 0) {
      const { width } = a.stream
      const output = [width, streamCount, 'rows'] as const
      dispatches.push(
        a.stream.normed
          ? await program.gpuJs('norm of streams', normalizeGroups, { n: width, offset: columns.streams }, [b.inputs, norm], b.streams, output)
          : await program.gpuJs(
              'rope of streams',
              rotate,
              { offset: columns.streams, stride: width, nope: 0, paddedNope: 0, vectors: a.stream.ropeVectors, half, rest: width },
              [b.inputs, b.rope],
              b.streams,
              output,
            ),
        await this.#write('write of streams', cache, b.streams, {
          width,
          rowWidth: regions.streamRow,
          planes: streamCount,
          xStride: width * streamCount,
          region: 0,
          regionStride: regions.stream,
        }),
      )
    }
    if (a.sharedRopeDim > 0) {
      const width = cacheWidth(a.sharedRopeDim)
      const constants = { offset: columns.ropeKey, stride: 0, nope: 0, paddedNope: 0, vectors: 1, half: a.sharedRopeDim / 2, rest: a.sharedRopeDim }
      dispatches.push(
        await program.gpuJs('rope of keys', rotate, constants, [b.inputs, b.rope], b.ropeKey, [width, 1, 'rows']),
        await this.#write('write of rope keys', cache, b.ropeKey, {
          width,
          rowWidth: width,
          planes: 1,
          xStride: width,
          region: regions.rope,
          regionStride: 0,
        }),
      )
    }
    if (a.factors) {
      const lanes = this.#plan.lanes
      const width = 2 * a.factors.rank * lanes
      dispatches.push(
        await program.gpuJs('coefficients', arrangeCoefficients, {}, [b.inputs, b.coefficientPlaces], b.coefficients, [
          lanes,
          2 * a.factors.rank,
          'rows',
        ]),
        await this.#write('write of coefficients', cache, b.coefficients, {
          width,
          rowWidth: width,
          planes: 1,
          xStride: width,
          region: regions.coefficients,
          regionStride: 0,
        }),
      )
    }
    return dispatches
  }

  async #write(name: string, cache: GPUBuffer, x: Shaped, rows: RowWrite): Promise<Dispatch> {
    const { format } = this.#plan
    const words = rows.rowWidth / (format === 'f32' ? 1 : 2)
    const buffers = [this.#program.count('step'), this.#b.rows, this.#b.pages, x.buffer, cache]
    return this.#program.wgsl(name, writeRows(rows, format), buffers, (n) => [Math.ceil(words / 64), rows.planes, n])
  }

  /** Attention in groups of rows, so that the parts of one group fit. */
  async #attend(cache: GPUBuffer): Promise<Dispatch[]> {
    const { flash, rowGroup, stepRows, tensor } = this.#plan
    if (flash.groups.length === 0) return []
    if (tensor) return this.#attendOnTensorCores(cache, tensor)
    const b = this.#b
    const program = this.#program
    const queries = this.#plan.a.absorbed ? b.absorbed : b.queries
    const dispatches: Dispatch[] = []
    const code = flashAttention(flash)
    for (let first = 0; first < stepRows; first += rowGroup) {
      const rowsOf = (n: number) => Math.max(0, Math.min(rowGroup, n - first))
      const start = program.uniform(Uint32Array.of(first, 0, 0, 0))
      const ropeQueries = this.#plan.a.sharedRopeDim > 0 ? b.queries.buffer : undefined
      const buffers = [b.rows, b.pages, queries.buffer, ropeQueries, cache, b.partSums.buffer, b.partStates.buffer, start]
      dispatches.push(await program.wgsl('attention', code, buffers, (n) => [b.mostParts, flash.groups.length, rowsOf(n)]))
      const constants = { parts: flash.parts, heads: flash.outHeads, firstRow: first }
      const out = { ...b.context, offset: first * flash.outHeads * flash.valueWidth * 4 }
      const combine = await program.gpuJs('combine parts', combineParts, constants, [b.partSums, b.partStates, b.parts], out, [
        flash.valueWidth,
        flash.outHeads,
        'rows',
      ])
      dispatches.push({ ...combine, groups: (n) => combine.groups(rowsOf(n)) })
    }
    return dispatches
  }

  async #attendOnTensorCores(cache: GPUBuffer, { shape, tiling }: NonNullable<GpuPlan['tensor']>): Promise<Dispatch[]> {
    const { a, rowGroup, stepRows } = this.#plan
    const b = this.#b
    const program = this.#program
    const queries = a.absorbed ? b.absorbed : b.queries
    const ropeQueries = a.sharedRopeDim > 0 ? b.queries.buffer : undefined
    const slots = shape.slots.length
    const words = packedQueryWidth(shape) / 2
    const packing = [program.count('step'), b.slots, queries.buffer, ropeQueries, b.packedQueries]
    const dispatches = [await program.wgsl('pack queries', packQueries(shape), packing, (n) => [Math.ceil(words / 64), slots, n])]
    for (let first = 0; first < stepRows; first += rowGroup) {
      const rowsOf = (n: number) => Math.max(0, Math.min(rowGroup, n - first))
      const start = program.uniform(Uint32Array.of(first, 0, 0, 0))
      const buffers = [b.rows, b.pages, b.packedQueries, cache, b.partSums.buffer, b.partStates.buffer, start]
      const code = tensorAttention(shape, tiling)
      dispatches.push(await program.wgsl('attention', code, buffers, (n) => [b.mostParts, shape.groups.length, rowsOf(n)]))
      const combined = [b.rows, b.partSums.buffer, b.partStates.buffer, b.context.buffer, start]
      dispatches.push(
        await program.wgsl('combine parts', combineTensorParts(shape), combined, (n) => [slots, combineGroups(shape.valueWidth), rowsOf(n)]),
      )
    }
    return dispatches
  }

  /** Sums over shards of the heads whose output this rank projects, and their gate. */
  async #segments(): Promise<Dispatch[]> {
    const { a, columns, segmentHeads: count } = this.#plan
    const b = this.#b
    if (count === 0) return []
    const source = a.absorbed ? b.values : { ...b.context, dims: [...b.context.dims, 1] }
    const constants = { planes: a.absorbed ? SHARDS : 1, factor: a.outputFactor }
    const output = [a.valueDim, count, 'rows'] as const
    const sum = await this.#program.gpuJs('sum over shards', sumHeads, constants, [source, b.headPlaces], b.segments, output)
    if (!a.gated) return [sum]
    const gate = await this.#program.gpuJs('gate', gateWith, { offset: columns.gate }, [b.segments, b.inputs], b.gated, [count * a.valueDim, 'rows'])
    return [sum, gate]
  }
}
