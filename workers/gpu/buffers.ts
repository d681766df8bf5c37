// The activations of a rank on its device: made once, for the largest step. Shapes are [width, rows] or [width, rows, planes].
import type { ProgramParts, Shaped } from '../../kernels/gpu/program.js'
import { ARGMAX_SLICES, ARGMAX_WORDS } from '../../kernels/gpu/wgsl/argmax.js'
import { cacheBytes } from '../../kernels/gpu/wgsl/cache-rows.js'
import { HEAD_GROUP } from '../../kernels/gpu/wgsl/flash-attention.js'
import { slotTable } from '../../kernels/gpu/wgsl/tensor-parts.js'
import { packedQueryWidth, SIDE } from '../../kernels/gpu/wgsl/tensor-shape.js'
import { paddedQueryWidth, queryWidth } from '../layout/attention-geometry.js'
import { cacheWidth } from '../layout/attention-plan.js'
import { SHARDS } from '../protocol.js'
import { Embeddings } from './embeddings.js'
import type { GpuPlan } from './plan.js'

/** For one kind of entries: [4, entries], and the uniform that tensorAttention reads. */
export interface EntryBuffers {
  readonly entries: GPUBuffer
  readonly sizes: GPUBuffer
}

export class GpuBuffers {
  /** [4, rows]: first entry of the row's block table, its length, pages of a part, parts. */
  readonly rows: GPUBuffer
  /** Block tables: [slots][pagesPerSlot]. */
  readonly pages: GPUBuffer
  /** [rows]: parts of each row, for gpu.js. */
  readonly parts: Shaped
  /** Embeddings of the step's rows as bf16, [words, rows]: see Embeddings. */
  readonly embeddings: GPUBuffer
  readonly residual: Shaped
  /** The residual after attention was added. */
  readonly postAttention: Shaped
  /** The projections of the normed input: see InputColumns. */
  readonly inputs: Shaped
  /** The same with biases or norms of heads, for models that have them; else `inputs` itself. */
  readonly finished: Shaped
  readonly latent: Shaped
  readonly rawQueries: Shaped
  readonly queries: Shaped
  readonly absorbed: Shaped
  readonly streams: Shaped
  readonly ropeKey: Shaped
  readonly coefficients: Shaped
  readonly coefficientPlaces: Shaped
  /** For tensor cores: [groups][rows][rowHeads][packedQueryWidth] f16. */
  readonly packedQueries: GPUBuffer
  /** Where each head's query is. */
  readonly slots: GPUBuffer
  /** Entries of attention on tensor cores, and the sizes of their rounds: of single rows, and of rows of a prompt. */
  readonly singles: EntryBuffers
  readonly prompts: EntryBuffers
  readonly partSums: Shaped
  readonly partStates: Shaped
  readonly context: Shaped
  /** [heads * valueDim, rows, shards] */
  readonly values: Shaped
  readonly headPlaces: Shaped
  readonly segments: Shaped
  readonly gated: Shaped
  /** [embed, rows, shards] */
  readonly attentionOut: Shaped
  readonly mlp: Shaped
  readonly gateUp: Shaped
  readonly activated: Shaped
  /** [ropeDim, rows]: cos half, sin half */
  readonly rope: Shaped
  readonly selected: Shaped
  readonly logits: Shaped
  /** [ARGMAX_WORDS * ARGMAX_SLICES, rows]: what argmaxOf reads. */
  readonly greedy: Shaped
  /** By layer; regions as in the plan. */
  readonly caches: readonly GPUBuffer[]

  constructor(program: ProgramParts, plan: GpuPlan, tables: number) {
    const { a, shape, stepRows: T, own } = plan
    const tensor = (...dims: number[]) => program.tensor(...dims)
    const paddedWidth = paddedQueryWidth(a)
    // Idle heads of a group read past the last head's query.
    const withSlack = (width: number, stride: number): Shaped => ({ buffer: program.buffer((width * T + HEAD_GROUP * stride) * 4), dims: [width, T] })
    const { outHeads } = plan.flash
    const { contextWidth, parts, tensor: onTensorCores } = plan
    this.rows = program.buffer(T * 16)
    this.pages = program.buffer(tables * 4)
    this.parts = tensor(T)
    this.embeddings = program.buffer(plan.kernels.products === 'tiles' ? Embeddings.words(shape.embed) * T * 4 : 0)
    this.residual = tensor(shape.embed, T)
    this.postAttention = tensor(shape.embed, T)
    this.inputs = tensor(plan.columns.width, T)
    this.finished = a.biased || a.headNormed ? tensor(plan.columns.width, T) : this.inputs
    this.latent = tensor(Math.max(1, a.queryRank), T)
    this.rawQueries = tensor(a.heads * queryWidth(a), T)
    this.queries = withSlack(plan.heads * paddedWidth, paddedWidth)
    this.absorbed = withSlack(Math.max(4, plan.absorbedWidth), cacheWidth(a.stream.keyWidth))
    this.streams = tensor(a.stream.width * Math.max(1, plan.streamCount), T)
    this.ropeKey = tensor(Math.max(1, cacheWidth(a.sharedRopeDim)), T)
    this.coefficients = tensor(Math.max(1, 2 * (a.factors?.rank ?? 0) * plan.lanes), T)
    this.coefficientPlaces = { buffer: program.upload(plan.coefficientPlaces), dims: [2, Math.max(1, plan.lanes)] }
    const groupRows = Math.min(plan.rowGroup, T)
    // A tile of 16 heads may begin at the last one.
    const tensorShape = onTensorCores?.shape
    this.packedQueries = program.buffer(tensorShape ? (T * tensorShape.slots.length + SIDE) * packedQueryWidth(tensorShape) * 2 : 0)
    this.slots = program.upload(tensorShape ? slotTable(tensorShape) : new Uint32Array(1))
    const entries = (): EntryBuffers => ({ entries: program.buffer(T * 16), sizes: program.uniform(new Uint32Array(4)) })
    this.singles = entries()
    this.prompts = entries()
    const partSlots = onTensorCores?.partSlots ?? outHeads * parts * groupRows
    this.partSums = tensor(contextWidth, partSlots)
    this.partStates = tensor(2, partSlots)
    this.context = tensor(outHeads * contextWidth, Math.ceil(T / 16) * 16)
    this.values = tensor(a.heads * a.valueDim, T, SHARDS)
    this.headPlaces = { buffer: program.upload(plan.headPlaces), dims: [SHARDS, Math.max(1, plan.segmentHeads)] }
    this.segments = tensor(Math.max(1, plan.segmentHeads * a.valueDim), T)
    this.gated = tensor(Math.max(1, plan.segmentHeads * a.valueDim), T)
    this.attentionOut = tensor(shape.embed, T, SHARDS)
    this.mlp = tensor(shape.embed, T, SHARDS)
    this.gateUp = tensor(2 * plan.mlpWidth * own.length, T)
    this.activated = tensor(plan.mlpWidth * own.length, T)
    this.rope = tensor(a.ropeDim, T)
    this.selected = tensor(shape.embed, T)
    this.logits = tensor(plan.vocab, T)
    this.greedy = tensor(ARGMAX_WORDS * ARGMAX_SLICES, T)
    this.caches = plan.layers.map(() => program.buffer(plan.regions.all * cacheBytes(plan.format)))
  }
}
