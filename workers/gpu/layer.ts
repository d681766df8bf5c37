// The dispatches of one layer on a rank's device, in order and in three segments: up to the heads' outputs, up to the projected
// output, up to the MLP's. Between segments ranks exchange partials; at one rank nothing leaves the device. Which dispatches a model
// has follows from its shape. Owns no step.
/// <reference types="@webgpu/types" />
import {
  addPartials,
  addVector,
  arrangeCoefficients,
  combineFactors,
  gateWith,
  normalizeGroups,
  normalizeSomeGroups,
  rotate,
  sumHeads,
  swiglu,
} from '../../kernels/gpu/elementwise.js'
import type { Command, Dispatch, ProgramParts, Shaped } from '../../kernels/gpu/program.js'
import { FIRST_QUERY, type LatentRows, latentGroups, writeLatentRows } from '../../kernels/gpu/wgsl/latent-rows.js'
import { ropeQueries } from '../../kernels/gpu/wgsl/tensor-parts.js'
import { headColumns, headRows, sumRows, swigluRows } from '../../kernels/gpu/wgsl/tensor-rows.js'
import { queriesFromLatent, queryWidth } from '../layout/attention-geometry.js'
import { cacheWidth } from '../layout/attention-plan.js'
import { SHARDS } from '../protocol.js'
import type { GpuBuffers } from './buffers.js'
import type { CacheWrite, KernelSet, Product } from './kernel-set.js'
import type { GpuPlan } from './plan.js'
import { absorbedQueries, rawQueries } from './raw-queries.js'
import type { DeviceMatrices, Tile } from './weights.js'

export interface LayerSegments {
  /** From the residual to the heads' outputs of each own shard. */
  readonly attention: readonly Command[]
  /** To each own shard's partial of the projected output. */
  readonly output: readonly Command[]
  /** To each own shard's partial of the MLP. */
  readonly mlp: readonly Command[]
  /** Adds the MLP's partials to the residual. */
  readonly end: readonly Command[]
}

/** Weights of a layer's norms. */
export interface LayerNorms {
  readonly input: Shaped
  readonly mlp: Shaped
  readonly query: Shaped
  /** [width, streams] */
  readonly streams: Shaped
  /** As InputColumns: what is added to the projections. */
  readonly bias: Shaped | undefined
  /** Norms of heads of queries and keys: weights [n, groups] over all columns, and which of the groups have one. */
  readonly heads: { readonly weight: Shaped; readonly hasWeight: Shaped } | undefined
}

export class LayerBuilder {
  readonly #program: ProgramParts
  readonly #plan: GpuPlan
  readonly #b: GpuBuffers
  readonly #kernels: KernelSet

  constructor(program: ProgramParts, plan: GpuPlan, buffers: GpuBuffers, kernels: KernelSet) {
    this.#kernels = kernels
    this.#program = program
    this.#plan = plan
    this.#b = buffers
  }

  async build(index: number, weights: DeviceMatrices, norms: LayerNorms): Promise<LayerSegments> {
    const { a, own, shape } = this.#plan
    const b = this.#b
    const layer = this.#plan.layers[index] as GpuPlan['layers'][number]
    const { tiles } = layer
    const cache = b.caches[index] as GPUBuffer
    const kernels = this.#kernels
    const heads = a.gated ? b.gated : b.segments
    // Products on tensor cores copy their activations anyway: what stands before them is done on the way.
    const fuses = this.#plan.kernels.products === 'tiles'
    const sum = (x: Shaped, p: Shaped, to: Shaped) => ({ rows: sumRows(shape.embed, this.#plan.stepRows), buffers: [x.buffer, p.buffer, to.buffer] })
    const first = index === 0
    const last = index === this.#plan.layers.length - 1
    const { mlpWidth } = this.#plan
    const raw = rawQueries(this.#plan, b)
    const unrotated = raw && { rows: headColumns(raw.x.dims[0] ?? 1, raw.from, raw.headWidth, raw.paddedWidth), buffers: [raw.x.buffer] }
    const inputs = fuses && !first ? sum(b.postAttention, b.mlp, b.residual) : undefined
    const postAttention = fuses ? sum(b.residual, b.attentionOut, b.postAttention) : undefined
    const activated = fuses ? { rows: swigluRows(2 * mlpWidth * own.length, mlpWidth), buffers: [b.gateUp.buffer] } : undefined
    const normed = (weight: Shaped) => ({ weight, epsilon: shape.normEps })
    return {
      attention: [
        ...(await kernels.product({
          label: 'inputs',
          weights,
          tiles: tiles.inputs,
          x: b.residual,
          y: b.inputs,
          norm: normed(norms.input),
          source: inputs,
        })),
        ...(await this.#finishInputs(norms)),
        ...(await this.#queries(weights, tiles.queryB, norms.query)),
        ...(await this.#cacheRows(cache, norms.streams)),
        ...(a.absorbed
          ? await kernels.product({ label: 'keyUp', weights, x: b.queries, source: unrotated, ...absorbedQueries(this.#plan, b, tiles.keyUp) })
          : []),
        ...(await kernels.attend(cache)),
        ...(a.absorbed ? await kernels.product({ label: 'valueUp', weights, tiles: tiles.valueUp, x: b.context, y: b.values }) : []),
      ],
      output: [
        ...(fuses ? [] : await this.#segments()),
        ...(await kernels.product({
          label: 'attentionOut',
          weights,
          tiles: tiles.attentionOut,
          x: heads,
          y: b.attentionOut,
          source: fuses ? this.#heads() : undefined,
        })),
      ],
      mlp: [
        ...(fuses
          ? []
          : [await this.#program.gpuJs('add attention', addPartials, {}, [b.residual, b.attentionOut], b.postAttention, [shape.embed, 'rows'])]),
        ...(await kernels.product({
          label: 'gateUp',
          weights,
          tiles: tiles.gateUp,
          x: b.postAttention,
          y: b.gateUp,
          norm: normed(norms.mlp),
          source: postAttention,
        })),
        ...(fuses ? [] : [await this.#program.gpuJs('swiglu', swiglu, { width: mlpWidth }, [b.gateUp], b.activated, [mlpWidth, own.length, 'rows'])]),
        ...(await kernels.product({ label: 'down', weights, tiles: tiles.down, x: b.activated, y: b.mlp, source: activated })),
      ],
      // The next layer adds on its way in.
      end: fuses && !last ? [] : [await this.#program.gpuJs('add MLP', addPartials, {}, [b.postAttention, b.mlp], b.residual, [shape.embed, 'rows'])],
    }
  }

  /** The heads' outputs that this rank projects, as they go to a product on tensor cores. */
  #heads(): NonNullable<Product['source']> {
    const { a, columns, stepRows } = this.#plan
    const b = this.#b
    const { buffer, dims } = a.absorbed ? b.values : b.context
    const gate = a.gated ? { stride: columns.width, from: columns.gate } : undefined
    const shape = { width: a.valueDim, stride: dims[0] ?? 1, planeRows: stepRows, planes: a.absorbed ? SHARDS : 1, factor: a.outputFactor, gate }
    return { rows: headRows(shape), buffers: [buffer, b.headPlaces.buffer, ...(gate ? [b.inputs.buffer] : [])] }
  }

  /** Queries of this rank's heads, rotated: [heads][nope padded, rope padded]. */
  async #queries(weights: DeviceMatrices, tiles: readonly Tile[], norm: Shaped): Promise<Command[]> {
    const { a, columns, heads, headStart } = this.#plan
    const b = this.#b
    const program = this.#program
    const width = queryWidth(a)
    const paddedNope = cacheWidth(a.nopeDim)
    const paddedWidth = paddedNope + cacheWidth(a.ropeDim)
    const dispatches: Command[] = []
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
    let source = b.finished
    let offset = columns.queryB
    if (queriesFromLatent(a)) {
      const normed = a.queryNormed ? { weight: norm, epsilon: a.normEps } : undefined
      const product = { label: 'queryB', weights, tiles, x: b.inputs, y: b.rawQueries, norm: normed }
      dispatches.push(...(await this.#kernels.product(product)))
      source = b.rawQueries
      offset = 0
    }
    if (rawQueries(this.#plan, b)) return dispatches
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

  /** Biases, or norms of the heads of queries and keys. */
  async #finishInputs({ bias, heads }: LayerNorms): Promise<Dispatch[]> {
    const { a, columns } = this.#plan
    const b = this.#b
    if (bias && heads) throw new RangeError('biases and norms of heads in one model')
    if (bias) return [await this.#program.gpuJs('biases', addVector, {}, [b.inputs, bias], b.finished, [columns.width, 'rows'])]
    if (!heads) return []
    const { weight, hasWeight } = heads
    const [n = 0, groups = 0] = weight.dims
    const constants = { n, epsilon: a.normEps }
    return [
      await this.#program.gpuJs('norms of heads', normalizeSomeGroups, constants, [b.inputs, weight, hasWeight], b.finished, [n, groups, 'rows']),
    ]
  }

  /** All that a latent model's rows write to the cache, and the rope columns of raw queries, in one dispatch. */
  async #latentRows(cache: GPUBuffer, norm: Shaped): Promise<Dispatch> {
    const { a, columns, regions, streamCount, format } = this.#plan
    const b = this.#b
    const rope = { from: columns.ropeKey, half: a.sharedRopeDim / 2, region: regions.rope, rowWidth: cacheWidth(a.sharedRopeDim) }
    const shape: LatentRows = {
      stride: columns.width,
      streams: streamCount,
      streamsFrom: columns.streams,
      width: a.stream.width,
      rowWidth: regions.streamRow,
      regionStride: regions.stream,
      epsilon: a.normEps,
      rope: a.sharedRopeDim > 0 ? rope : undefined,
    }
    const tensorShape = this.#plan.tensor?.shape
    const raw = shape.rope && tensorShape && rawQueries(this.#plan, b)
    const queries = raw && ropeQueries(tensorShape, { ...raw, stride: raw.x.dims[0] ?? 1 }, FIRST_QUERY)
    const buffers = [b.rows, b.pages, cache, b.inputs.buffer, norm.buffer, shape.rope && b.rope.buffer]
    if (raw) buffers.push(b.slots, raw.x.buffer, b.packedQueries)
    const code = writeLatentRows(shape, format, queries)
    return this.#program.wgsl('write to cache', code, buffers, ({ rows }) => [latentGroups(shape, queries), rows, 1])
  }

  /** What the step's tokens write to the cache. */
  async #cacheRows(cache: GPUBuffer, norm: Shaped): Promise<Command[]> {
    const { a, columns, regions, streamCount } = this.#plan
    const b = this.#b
    const program = this.#program
    if (this.#plan.kernels.products === 'tiles' && streamCount > 0 && a.stream.normWidth > 0 && a.absorbed)
      return [await this.#latentRows(cache, norm)]
    const half = a.ropeDim / 2
    const dispatches: Dispatch[] = []
    const writes: CacheWrite[] = []
    if (streamCount > 0) {
      const { width } = a.stream
      const output = [width, streamCount, 'rows'] as const
      const normed = { n: width, offset: columns.streams, epsilon: a.normEps }
      const vectors = { offset: columns.streams, stride: width, nope: 0, paddedNope: 0, vectors: a.stream.ropeVectors, half, rest: width }
      dispatches.push(
        a.absorbed && a.stream.normWidth > 0
          ? await program.gpuJs('norm of streams', normalizeGroups, normed, [b.inputs, norm], b.streams, output)
          : await program.gpuJs('rope of streams', rotate, vectors, [b.finished, b.rope], b.streams, output),
      )
      const rows = { width, rowWidth: regions.streamRow, planes: streamCount, xStride: width * streamCount, region: 0, regionStride: regions.stream }
      writes.push({ x: b.streams, rows })
    }
    const single = (x: Shaped, width: number, region: number) =>
      writes.push({ x, rows: { width, rowWidth: width, planes: 1, xStride: width, region, regionStride: 0 } })
    if (a.sharedRopeDim > 0) {
      const width = cacheWidth(a.sharedRopeDim)
      const constants = { offset: columns.ropeKey, stride: 0, nope: 0, paddedNope: 0, vectors: 1, half: a.sharedRopeDim / 2, rest: a.sharedRopeDim }
      dispatches.push(await program.gpuJs('rope of keys', rotate, constants, [b.inputs, b.rope], b.ropeKey, [width, 1, 'rows']))
      single(b.ropeKey, width, regions.rope)
    }
    if (a.factors) {
      const lanes = this.#plan.lanes
      const vectors = 2 * a.factors.rank
      const args = [b.inputs, b.coefficientPlaces]
      dispatches.push(await program.gpuJs('coefficients', arrangeCoefficients, {}, args, b.coefficients, [lanes, vectors, 'rows']))
      single(b.coefficients, vectors * lanes, regions.coefficients)
    }
    return writes.length === 0 ? [] : [...dispatches, ...(await this.#kernels.writeCache(cache, writes))]
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
