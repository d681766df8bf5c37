// What crosses between the coordinator and its worker threads: types, error codes, names of stages. No logic.

import type { BackendName, CacheFormat, SharedMemory } from '../kernels/backend.js'
import { PAGE_TOKENS } from '../kernels/cache-format.js'
import type { AdapterFacts, DeviceShortage, GpuRequest, GpuSettings } from '../kernels/gpu/adapter.js'
import type { SimdLevel } from '../kernels/wasm/simd-level.js'
import type { WasmModule } from '../kernels/wasm/webassembly.js'
import type { FloatFormat, WeightFormat } from '../kernels/weight-format.js'

/** A model is always cut into this many shards; `ranks` says how many of them a thread carries. */
export const SHARDS = 4
export const RANK_COUNTS = [1, 2, 4] as const
/** Numbers of ranks that a model can be run by. */
export type RankCount = (typeof RANK_COUNTS)[number]

export { PAGE_TOKENS }

/** Query heads headStart..headEnd-1, which attend over one cache stream. */
export interface AttentionUnit {
  readonly stream: number
  readonly headStart: number
  readonly headEnd: number
}

/** What a token writes to a cache stream, and which columns of a cached row are keys and values. Widths in values. */
export interface StreamShape {
  readonly width: number
  readonly keyWidth: number
  readonly valueOffset: number
  readonly valueWidth: number
  /** Columns, from 0 on, that have an RMS norm before they are rotated and cached; 0: none. */
  readonly normWidth: number
  /** Vectors of ropeDim values, from column 0 on, that are rotated before they are cached. */
  readonly ropeVectors: number
}

/**
 * Attention lowered to streams and units: what the ranks run, whatever the variant. Keys are the columns from 0 on.
 * See src/model/families.
 */
export interface AttentionShape {
  readonly heads: number
  /** A head's query: columns without rope, then columns with. */
  readonly nopeDim: number
  readonly ropeDim: number
  /** Width of a head's output. */
  readonly valueDim: number
  /** Width of the query latent that all heads share; 0: queries come straight from the block's input. */
  readonly queryRank: number
  /** The query latent has a norm. */
  readonly queryNormed: boolean
  /** Each head's query has a norm before it is rotated, of one weight for all heads. */
  readonly headNormed: boolean
  /** Vectors are added to the queries of all heads and to streams, before norms. Without a query latent only. */
  readonly biased: boolean
  /** Number of cache streams, all of the shape `stream`. */
  readonly streams: number
  readonly stream: StreamShape
  /** Queries are taken to the stream's space before attention and values out of it after: W_UK and W_UV per head. */
  readonly absorbed: boolean
  /** Width of the rope key that all heads share, a stream of its own; 0: none. */
  readonly sharedRopeDim: number
  /** Queries, keys and values are sums of `rank` shared vectors with coefficients per head and token. */
  readonly factors: { readonly queryRank: number; readonly rank: number } | undefined
  /** The output is multiplied by the sigmoid of a projection of the block's input. */
  readonly gated: boolean
  /** By shard: its units, in ascending and contiguous order of heads. */
  readonly units: readonly (readonly AttentionUnit[])[]
  /** Shard s projects queries and outputs of the heads headCuts[s]..headCuts[s + 1] - 1. */
  readonly headCuts: readonly number[]
  /** Softmax scale. */
  readonly scale: number
  /** Multiplies the sum over streams, once. */
  readonly outputFactor: number
  /** Added to the mean square in the norms of the query latent, of streams and of heads. */
  readonly normEps: number
}

/** Rotary embedding: vectors of 2 * n values are rotated in halves by position * frequency. */
export interface RopeShape {
  /** n angles per token, radians. */
  readonly frequencies: readonly number[]
  /** Multiplies cosines and sines (yarn); 1 otherwise. */
  readonly amplitude: number
}

/** What a rank must know of a model. */
export interface ModelShape {
  readonly layers: number
  readonly embed: number
  readonly vocab: number
  readonly intermediate: number
  /** Added to the mean square in the norms before attention, the MLP and the head. */
  readonly normEps: number
  readonly rope: RopeShape
  /** One matrix is the token embedding and the output projection. */
  readonly tiedHead: boolean
  readonly attention: AttentionShape
}

export const PARTITIONS = ['heads', 'sequence'] as const
/**
 * How the cache is cut. 'heads': a rank caches what its heads attend over. 'sequence': a rank caches every fourth page for each of its
 * shards (page i of a sequence belongs to shard i mod 4), and attends over them with all heads.
 */
export type Partition = (typeof PARTITIONS)[number]

/** How a model is run; with the shape it fixes every address of every memory. */
export interface RunPlan {
  readonly backend: BackendName
  /** What devices the ranks take, for the gpu backend. */
  readonly gpu: GpuSettings | undefined
  /** Build of the wasm kernels. */
  readonly simd: SimdLevel
  readonly ranks: RankCount
  readonly weights: WeightFormat
  /** Of the token embedding's own copy, which int8 weights need. */
  readonly embedding: FloatFormat
  readonly cache: CacheFormat
  readonly partition: Partition
  /** Maximum rows (tokens) of one step. */
  readonly stepRows: number
  /** Pages of the cache, shared by all sequences. */
  readonly pages: number
  /** Maximum tokens of one sequence. */
  readonly contextTokens: number
  /** Maximum sequences at once. */
  readonly slots: number
  /** Maximum pages of one sequence. */
  readonly pagesPerSlot: number
  readonly replicate: Replication
}

/** Projections that every rank computes whole because that costs less than a collective. This changes no bit. */
export interface Replication {
  readonly queryA: boolean
  /** Only with queryA. */
  readonly queryB: boolean
}

/** Where in a step a rank is; a missed deadline names it. Slot values are indices. */
export const STAGES = [
  'idle',
  'start of step',
  'embedding',
  'gather of query latents',
  'gather of queries',
  'gather of queries and rows to cache',
  'exchange of partial attention',
  'reduce-scatter of attention outputs',
  'all-reduce of the attention projection',
  'all-reduce of the MLP',
  'gather of logits',
  'sampling',
] as const
/** Where in a step a rank is. */
export type Stage = (typeof STAGES)[number]

/** Parts of a step whose computing is timed. Norms, sums and copies are not. */
export const PHASES = ['projections', 'attention', 'MLP', 'logits and sampling'] as const
/** What a rank spends its time with. */
export type Phase = (typeof PHASES)[number]

/** What a rank gets with its attach task; its control plane is the port. */
export interface AttachTask {
  readonly rank: number
  readonly ranks: RankCount
  readonly port: import('node:worker_threads').MessagePort
  readonly control: SharedArrayBuffer
}

/** How many adapters a rank may find in their memory, and of what rank. */
export interface AdapterLimits {
  /** Adapters at the same time. */
  readonly places: number
  /** Largest rank of a projection. */
  readonly rank: number
}

/** The memory of all adapters. It grows as they come; a rank opens it when a row first has one. */
export interface AdapterMemory extends AdapterLimits {
  readonly memory: SharedMemory
}

export interface RankInit {
  readonly shape: ModelShape
  readonly plan: RunPlan
  readonly module: WasmModule | undefined
  readonly shards: readonly SharedMemory[]
  readonly rankMemory: SharedMemory
  /** Undefined at one rank: the exchange regions lie in the rank's memory then. */
  readonly exchange: SharedMemory | undefined
  /** Undefined: no row has an adapter. */
  readonly adapters: AdapterMemory | undefined
  readonly mailbox: SharedArrayBuffer
  readonly deadlineMs: number
  /** Where events are recorded, if a profile is wanted. */
  readonly profile: SharedArrayBuffer | undefined
  /** How often a rank polls at a collective before it parks; 0 unless every rank has a core. */
  readonly spins: number
}

export interface RankFailure {
  readonly code: 'RANK_FAILED' | 'RANK_LATE'
  readonly message: string
}

export const FAULT_KINDS = ['throw', 'hang', 'exit', 'slow', 'out-of-memory', 'device-lost', 'invalid-command'] as const
export type FaultKind = (typeof FAULT_KINDS)[number]

/** What a rank really runs on, as it reports. */
export interface RankReport {
  readonly backend: BackendName
  /** The part of the determinism key that names instructions, or adapter and driver. */
  readonly instructions: string
  readonly adapter: AdapterFacts | undefined
  /** Of a step, in order; empty on CPU backends. */
  readonly dispatches: readonly DispatchFacts[]
}

/** One entry of a GPU rank's step, and who wrote its kernel. */
export interface DispatchFacts {
  readonly name: string
  readonly origin: 'gpu.js' | 'WGSL' | 'copy'
}

/** What a rank would dispatch for a token. */
export interface DispatchList {
  /** Of each layer, in order, for one row. */
  readonly layer: readonly DispatchFacts[]
  /** Outside the layers: before the first one, then after the last. */
  readonly end: readonly DispatchFacts[]
  readonly readbacksPerToken: number
}

/** The control plane of a rank (comlink). Never on the per-token path: a rank in a step answers after it. */
export interface RankApi {
  /** Loads Dawn in this thread and takes its device: one rank after another (see loadDawn). Before load. */
  acquireGpu(request: GpuRequest): Promise<void>
  /** Opens the memories and builds the runner; returns what the rank really runs on. */
  load(init: RankInit): Promise<RankReport | DeviceShortage>
  /** Fills the whole cache of a GPU rank with random values: for timing long contexts. This and the next two reject on a CPU rank. */
  fillCache(): Promise<void>
  /** Whole pages of a layer of a GPU rank's cache, in the order of layoutPages. */
  readCache(layer: number, pages: readonly number[]): Promise<Uint8Array>
  /** Writes pages that readCache returned. */
  writeCache(layer: number, pages: readonly number[], bytes: Uint8Array): Promise<void>
  /** The failure of the last aborted step, if it was this rank's own; clears it. */
  takeFailure(): RankFailure | undefined
  /** Frees what the thread alone holds (a GPU device) before it ends. */
  close(): Promise<void>
}

/** A rectangle of a source tensor [rows, cols] and where it goes in a packed matrix. Rows and columns in elements. */
export interface MatrixPiece {
  readonly memory: MemoryName
  /** Byte offset of the packed matrix. */
  readonly ptr: number
  readonly format: WeightFormat
  readonly packedCols: number
  readonly row: number
  readonly rows: number
  readonly col: number
  readonly cols: number
  /** Where the rectangle's first element lands. */
  readonly packedRow: number
  readonly packedCol: number
  /** Source columns become packed rows. */
  readonly transposed: boolean
}

/** `count` values of a vector from `start` on: float32, times a factor, at a byte offset. */
export interface VectorPiece {
  readonly memory: MemoryName
  readonly ptr: number
  readonly start: number
  readonly count: number
  readonly factor: number
}

export interface MemoryName {
  readonly kind: 'shard' | 'rank'
  readonly index: number
}

/** Types of stored elements. 'u8': a packed matrix of a converted checkpoint. 'q8_0' and 'q4_0': GGML's blocks of 32 elements with a scale. */
export type StoredType = 'f32' | 'f16' | 'bf16' | 'f64' | 'u8' | 'q8_0' | 'q4_0'

/** Of an element; those of a block together are whole bytes. */
export const STORED_BYTES: Readonly<Record<StoredType, number>> = { f64: 8, f32: 4, f16: 2, bf16: 2, u8: 1, q8_0: 34 / 32, q4_0: 18 / 32 }

/** A block of whole rows of one tensor for a loader thread. */
export interface LoadTask {
  readonly tensor: string
  readonly path: string
  /** As it was when the header was read; a file that changed since is not loaded. */
  readonly file: { readonly size: number; readonly mtimeMs: number; readonly ino: number }
  readonly dtype: StoredType
  /** Byte offset of the tensor's first element. */
  readonly offset: number
  /** Undefined: row-major and contiguous. */
  readonly strided: { readonly shape: readonly number[]; readonly strides: readonly number[] } | undefined
  /** Rows firstRow..firstRow+rows-1 of the tensor, each of cols elements. */
  readonly firstRow: number
  readonly rows: number
  readonly cols: number
  readonly pieces: readonly (MatrixPiece & { readonly buffer: SharedArrayBuffer })[]
  readonly vectors: readonly (VectorPiece & { readonly buffer: SharedArrayBuffer })[]
  /** A packed matrix, or part of one, goes to a byte offset as it is. */
  readonly direct: { readonly buffer: SharedArrayBuffer; readonly ptr: number; readonly format: WeightFormat } | undefined
}

/** A loader's result: bytes read, or what is wrong with the data. */
export type LoadResult =
  | { readonly bytes: number }
  | { readonly problem: 'truncated' | 'changed' | 'non-finite' | 'too-large'; readonly message: string }
