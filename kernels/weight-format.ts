// What a weight format is: everything that any layer must know of it, in one record. The records are in float-weights.ts,
// int8-weights.ts and int4-weights.ts; weight-formats.ts has the table. A new format is a name here, a record, and the kernels that the record names.
import type { BlockedType } from './ggml-blocks.js'
import type { MatmulKernel, WasmExports } from './wasm/exports.js'

/** Formats whose elements stand alone: a row can be read without its neighbours. */
export type FloatFormat = 'f32' | 'bf16'
/** Formats of the weights in memory: see docs/options.md. */
export type WeightFormat = FloatFormat | 'int8' | 'int4'

/** A rectangle of source elements; rows and columns counted within the source. */
export interface Rectangle {
  readonly row: number
  readonly rows: number
  readonly col: number
  readonly cols: number
}

/** Where a rectangle of a source goes in a packed matrix. */
export interface Placement {
  /** float32 bits, [*, sourceCols]. */
  readonly source: Uint32Array
  readonly sourceCols: number
  readonly rectangle: Rectangle
  /** Columns of the packed matrix. */
  readonly packedCols: number
  /** Where the rectangle's first element lands. packedCol is a multiple of blockColumns. */
  readonly packedRow: number
  readonly packedCol: number
  /** Source columns become packed rows. */
  readonly transposed: boolean
}

/** How the WGSL matrix product (gpu/wgsl/packed-matmul.ts) reads the format. "Column" means a block of blockColumns columns. */
export interface WgslColumns {
  /** Threads that share one column, each with 4 * sums of its rows. */
  readonly threads: number
  /** Columns of a row of k inputs. */
  readonly count: string
  /** Declares `quad`, the thread's rows in its column. */
  readonly position: string
  /** Index of the thread's partial sums: 64 for each output row. */
  readonly lane: string
  /** vec4 sums of a thread and row of activations: lo<t>, and with 2 hi<t>. */
  readonly sums: 1 | 2
  /** Loads column c. */
  readonly load: string
  /** Adds the products of column c with row t of activations; normed: times the norm's weight, its square added to square<t>. */
  readonly use: (t: number, normed: boolean) => string
  /** Functions that these need. */
  readonly functions: (normed: boolean) => string
}

/** How a format holds GGML's blocks of one type: the same integers and scales, so the same values. */
export interface KeptBlocks {
  /** Whole tiles of rows of blocks, `stride` bytes apart, to dst. Pointers in the memory of the exports. */
  readonly placeTiles: (kernels: WasmExports, src: number, stride: number, tiles: number, blocks: number, dst: number) => void
  /** One block to row `row`, columns from `col` on, of the matrix of `cols` columns at byte offset ptr. */
  readonly placeBlock: (target: DataView, ptr: number, row: number, col: number, cols: number, block: Uint8Array) => void
}

export interface WeightFormatRecord {
  /** For the documentation: what is stored, what it costs and where it runs. */
  readonly summary: string
  /** Largest error of a stored weight, relative to the largest magnitude of its row's block. */
  readonly tolerance: number
  /** A matrix is a sequence of tiles of tileRows rows, a tile a sequence of blocks of blockColumns columns. tileRows divides TILE_ROWS. */
  readonly tileRows: number
  readonly blockColumns: number
  readonly blockBytes: number
  /** The CPU's matrix product. It also prepares the activations (int8, int4: quantizes them). */
  readonly matmul: MatmulKernel
  /** The same bits by dot products that add in one instruction, where the engine has them. */
  readonly dotMatmul?: MatmulKernel
  /** Reads one row. Undefined: the embedding needs a float copy of its own. */
  readonly gatherRow: 'gatherRowF32' | 'gatherRowBf16' | undefined
  readonly wgsl: WgslColumns
  /** Tiles of the format can become the f16 tiles of the tensor-core products (gpu/wgsl/tensor-weights.ts). */
  readonly tensorTiles: boolean
  /** Tiles as float32 for gpu.js kernels: how many times as long, and the conversion. Undefined: gpu.js kernels do not support the format. */
  readonly floatTiles: { readonly scale: number; readonly widen: (words: Uint32Array) => Uint32Array<ArrayBuffer> } | undefined
  /** Type of the elements that packTiles and packColumns read. */
  readonly packSource: FloatFormat
  /** Packs whole tiles of source rows, `stride` bytes apart, to dst. Pointers in the memory of the exports. */
  readonly packTiles: (kernels: WasmExports, src: number, stride: number, tiles: number, cols: number, dst: number) => void
  /** The same of source columns: `rows` source rows become packed columns. */
  readonly packColumns: (kernels: WasmExports, src: number, stride: number, tiles: number, rows: number, dst: number) => void
  /** Packs element by element into the matrix at byte offset ptr. Whole blocks, or the matrix's last columns. */
  readonly packElements: (target: ArrayBufferLike, ptr: number, placement: Placement) => void
  /** Blocks of GGML that the format holds as they are. */
  readonly kept: Partial<Readonly<Record<BlockedType, KeptBlocks>>>
  /** Largest magnitude that packing can take. */
  readonly largest: number
  /** Index of the first stored value of packed bytes that is not finite, or -1. */
  readonly nonFinite: (kernels: WasmExports, src: number, bytes: number) => number
  /** Element (row, col) of a matrix of `cols` columns as the kernels see it. */
  readonly read: (memory: DataView, ptr: number, row: number, col: number, cols: number) => number
}
