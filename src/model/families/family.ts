// What a model family is: how its config.json is read, what its tensors are called and of what shapes they are, and how its attention
// is lowered to streams and units. Everything beyond a family (layouts, placement, kernels, ranks) works on logical matrices and on
// the lowered shape, and knows no family.
import type { AttentionShape } from '../../../workers/protocol.js'
import type { Fail } from '../../options/check.js'
import type { Dimension, ModelConfig } from '../model-config.js'

/** Shapes of a checkpoint's tensors by name; undefined: there is no such tensor. */
export type ShapeOf = (tensor: string) => readonly number[] | undefined

/** config.json's names of what ModelConfig has; a dimension that is not listed does not exist in the family. */
export interface ConfigKeys {
  readonly layers: string
  readonly heads: string
  readonly embed: string
  readonly vocab: string
  readonly contextTokens: string
  readonly intermediate: string
  readonly dims: Readonly<Partial<Record<Dimension, string>>>
}

/** Names of the tensors outside the attention, and where a layer's and its attention's tensors are. */
export interface DecoderNames {
  readonly layer: (index: number) => string
  /** After the layer's prefix. */
  readonly attention: string
  readonly inputNorm: string
  readonly mlpNorm: string
  readonly gate: string
  readonly up: string
  readonly down: string
  /** After the attention's prefix: [embed, heads * valueDim]. */
  readonly attentionOut: string
  readonly finalNorm: string
  readonly head: string
  readonly embedding: string
  /** Which of the two names files have for one matrix that is both. Either is read. */
  readonly tied: 'head' | 'embedding'
}

/** A decoder as a line of models has it; its attention is the variant's. */
export interface Decoder {
  readonly name: string
  /** As `architectures` of config.json has them. */
  readonly architectures: readonly string[]
  /** Whether a config.json is of this decoder. */
  readonly recognises: (config: Readonly<Record<string, unknown>>) => boolean
  readonly config: ConfigKeys
  readonly names: DecoderNames
  /** Of norms, where config.json does not say. */
  readonly normEps: number
  /** Whether head and embedding are one matrix, where config.json does not say. */
  readonly tiedHead: boolean
  /** Fields of config.json that mean something else in this decoder than elsewhere, and the values that it takes; null: any. */
  readonly allows: Readonly<Record<string, readonly unknown[] | null>>
  /** Tokens that a row attends to at most, itself included. Undefined as a member: these models have no window, and a field of one is refused. */
  readonly window?: (config: Readonly<Record<string, unknown>>, layers: number) => number | undefined
  /** Whether rotary vectors are stored as pairs of neighbours; default: as two halves. */
  readonly pairedRope?: (config: Readonly<Record<string, unknown>>) => boolean
  /** What checkpoints without tokenizer.json have. */
  readonly tokenizer: 'gpt2' | 'none'
  /** Refuses what only this decoder's files can say. Throws what `fail` makes. */
  readonly check?: (config: Readonly<Record<string, unknown>>, fail: Fail) => void
  /** Whether a tensor is of a part of the model that decoding does not need. */
  readonly skips?: (name: string, layers: number) => boolean
}

/** A matrix of the model as ranks compute with it, before it is cut over shards. Shapes are [rows, cols]. */
export type LogicalMatrix =
  /** [queryRank, embed]; with factors: their query vectors, one below the other. */
  | { readonly name: 'queryA' }
  /** [heads * query rows, queryRank or embed] */
  | { readonly name: 'queryB' }
  /** [stream width, embed] of one cache stream */
  | { readonly name: 'stream'; readonly stream: number }
  /** [sharedRopeDim, embed] */
  | { readonly name: 'ropeKey' }
  /** [heads, embed]: coefficients of one factor, for keys or for values */
  | { readonly name: 'coefficients'; readonly of: 'key' | 'value'; readonly factor: number }
  /** W_UK and W_UV of a head over a stream: [keyWidth, nopeDim] and [valueDim, valueWidth] */
  | { readonly name: 'keyUp' | 'valueUp'; readonly stream: number; readonly head: number }
  /** [heads * valueDim, embed] */
  | { readonly name: 'outputGate' }
  /** [embed, heads * valueDim] */
  | { readonly name: 'attentionOut' }
  /** MLP: [intermediate, embed] twice and [embed, intermediate] */
  | { readonly name: 'gate' | 'up' | 'down' }
  /** [vocab, embed] */
  | { readonly name: 'head' | 'embedding' }

/** A rectangle of a tensor as it is stored, [rows, cols]: the last dimension is the columns, all others are rows. */
export interface Area {
  readonly row: number
  readonly rows: number
  readonly col: number
  readonly cols: number
}

/** A rectangle of a stored tensor and the rows of the logical matrix that it is. */
export interface MatrixPart {
  readonly area: Area
  readonly into: LogicalMatrix
  /** First row of the logical matrix that it fills. */
  readonly row: number
  /** Stored columns are rows of the logical matrix. */
  readonly transposed: boolean
}

/** A vector that ranks hold of their own. `head`: of every head's query; `queryBias`: of all heads' queries. */
export type VectorTarget =
  | { readonly vector: 'input' | 'mlp' | 'query' | 'head' | 'final' | 'queryBias' }
  | { readonly vector: 'stream' | 'streamBias'; readonly stream: number }

/** Values of a stored vector, from `start` on, and the first value of the target that they are. */
export interface VectorPart {
  readonly start: number
  readonly count: number
  readonly into: VectorTarget
  readonly at: number
}

/** What random weights of a matrix must be like to keep activations at a size of about 1. */
export type Init =
  /** Rows are the embedding, or give the logits. */
  | 'embedding'
  /** The product is added to the residual. */
  | 'residual'
  /** A projection of inputs that are this many times larger than 1. */
  | { readonly inputScale: number }

export interface VectorSpec {
  readonly kind: 'norm' | 'bias'
  /** Undefined: not of a layer. */
  readonly layer: number | undefined
  readonly name: string
  readonly shape: readonly [number]
  readonly parts: readonly VectorPart[]
  /** Folded into the values at load. */
  readonly factor: number
}

export interface MatrixSpec {
  readonly kind: 'matrix'
  /** Undefined: not of a layer. */
  readonly layer: number | undefined
  readonly name: string
  /** Another name of the same tensor: a file may hold either, or both with the same values. */
  readonly alias: string | undefined
  readonly shape: readonly number[]
  /** Dimension of `shape` that products sum over, for random weights. */
  readonly inputs: number
  readonly parts: readonly MatrixPart[]
  readonly init: Init
}

/** A tensor of the checkpoint and what it is in the model. */
export type TensorSpec = VectorSpec | MatrixSpec

/** An attention as it was lowered from a configuration. */
export interface LoweredAttention {
  readonly attention: AttentionShape
  /** Folded into the norm weights of the query latent and of streams; default 1. float32 values. */
  readonly queryNormFactor?: number
  readonly streamNormFactor?: number
  /** Rotary vectors are stored as pairs of neighbours; default false: as two halves. */
  readonly pairedRope?: boolean
}

/** What a variant's tensors follow from. */
export interface AttentionContext {
  readonly attention: AttentionShape
  readonly embed: number
  readonly queryNormFactor: number
  readonly streamNormFactor: number
  readonly pairedRope: boolean
}

/** Widths of a preset of `tetrad synth`; the variant takes what it needs. */
export interface PresetSize {
  readonly heads: number
  readonly headDim: number
  readonly shareQueryDim: number
  readonly latent: {
    readonly queryRank: (latents: number) => number
    readonly kvRank: number
    readonly nopeDim: number
    readonly ropeDim: number
  }
}

/** One attention variant of a decoder. */
export interface Variant {
  readonly name: string
  readonly decoder: Decoder
  /** Gated variants and ablations cache the same as their originals: comparisons leave them out. */
  readonly isPlain: boolean
  /** A tensor that each of its checkpoints has, after the attention's prefix; where a decoder has one variant only. */
  readonly needs?: string
  /** Whether a checkpoint's first layer has this variant's tensors. shapeOf takes names after the attention's prefix. */
  matches(config: ModelConfig, shapeOf: ShapeOf): boolean
  /** shapeOf is asked only for what config.json leaves open. Throws CheckpointError CONFIG_INVALID. */
  lower(config: ModelConfig, shapeOf: ShapeOf): LoweredAttention
  /** Tensors of one layer, in the order of state dicts, without the output projection. Names after the attention's prefix. */
  tensors(context: AttentionContext): TensorSpec[]
  /** The attention's fields of config.json for a preset. */
  presetFields(size: PresetSize): Readonly<Record<string, number>>
}

/** A norm's vector of n weights, times a factor. */
export function norm(name: string, n: number, into: VectorTarget, factor = 1): VectorSpec {
  return { kind: 'norm', layer: undefined, name, shape: [n], parts: [{ start: 0, count: n, into, at: 0 }], factor }
}

/** A vector of n values that is added, as its parts say. */
export function bias(name: string, n: number, parts: readonly VectorPart[]): VectorSpec {
  return { kind: 'bias', layer: undefined, name, shape: [n], parts, factor: 1 }
}

interface MatrixFacts {
  readonly alias?: string
  readonly inputs?: number
  readonly init?: Init
}

/** A tensor that is made of parts. */
export function matrix(name: string, shape: readonly number[], parts: readonly MatrixPart[], facts: MatrixFacts = {}): MatrixSpec {
  const { alias, inputs = shape.at(-1) ?? 1, init = { inputScale: 1 } } = facts
  return { kind: 'matrix', layer: undefined, name, alias, shape, inputs, parts, init }
}

/** A tensor [rows, cols] that is a whole logical matrix, as it is stored. */
export function whole(name: string, [rows, cols]: readonly [number, number], into: LogicalMatrix, facts: MatrixFacts = {}): MatrixSpec {
  return matrix(name, [rows, cols], [part({ row: 0, rows, col: 0, cols }, into)], facts)
}

export function part(area: Area, into: LogicalMatrix, row = 0, transposed = false): MatrixPart {
  return { area, into, row, transposed }
}
