// Packs one block of a checkpoint into matrices. The kernels convert and pack whole tiles in a memory of this thread; the tiles are then
// copied to their matrix. Rows that do not fill a tile are packed element by element.

import { type BlockedType, GGML_BLOCK, GGML_BLOCK_BYTES, isBlocked } from '../../kernels/ggml-blocks.js'
import { packedBytes } from '../../kernels/packing.js'
import type { WasmExports } from '../../kernels/wasm/exports.js'
import { type WasmMemory, type WasmModule, WebAssembly } from '../../kernels/wasm/webassembly.js'
import type { FloatFormat, KeptBlocks, Rectangle, WeightFormat } from '../../kernels/weight-format.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import { type LoadTask, type MatrixPiece, STORED_BYTES, type VectorPiece } from '../protocol.js'

/** Bytes past the end of a buffer that kernels read and write: they use whole vectors. */
const SLACK = 64
const WASM_PAGE_BYTES = 65536

export class BlockPacker {
  readonly #module: WasmModule
  #memory: WasmMemory | undefined
  #kernels: WasmExports | undefined
  #task: LoadTask | undefined
  #count = 0
  // Byte offsets: stored elements, float32, bfloat16, packed tiles.
  #raw = 0
  #wide = 0
  #half = 0
  #out = 0
  #hasWide = false
  #hasHalf = false

  constructor(module: WasmModule) {
    this.#module = module
  }

  /** Allocates room for a task's block. Returns the view that its stored bytes are read into; it is valid until the next call. */
  begin(task: LoadTask): Uint8Array {
    const count = task.rows * task.cols
    const rawBytes = count * STORED_BYTES[task.dtype]
    const outBytes = Math.max(0, ...task.pieces.map((p) => packedBytes(...packedExtent(p, task), p.format)))
    const align = (at: number) => Math.ceil((at + SLACK) / 64) * 64
    this.#task = task
    this.#count = count
    this.#raw = 64
    this.#wide = align(this.#raw + rawBytes)
    this.#half = align(this.#wide + count * 4)
    this.#out = align(this.#half + count * 2)
    this.#hasWide = false
    this.#hasHalf = false
    const pages = Math.ceil((align(this.#out + outBytes) + SLACK) / WASM_PAGE_BYTES)
    if (!this.#memory || this.#memory.buffer.byteLength < pages * WASM_PAGE_BYTES) {
      const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
      this.#memory = memory
      this.#kernels = new WebAssembly.Instance(this.#module, { env: { memory, abort: () => {} } }).exports as unknown as WasmExports
    }
    return new Uint8Array(this.#memory.buffer, this.#raw, rawBytes)
  }

  /** Index of the first element of the block that is not finite, or -1. Call once, after the bytes have been read. */
  check(): number {
    const { dtype, direct } = this.#current
    const k = this.#k
    if (direct) return WEIGHT_FORMATS[direct.format].nonFinite(k, this.#raw, this.#count)
    if (dtype === 'bf16' || dtype === 'f16') return k.nonFinite16(this.#raw, this.#count, dtype === 'bf16' ? 0x7f80 : 0x7c00)
    if (dtype === 'f32') return k.nonFinite32(this.#raw, this.#count)
    if (isBlocked(dtype)) {
      const bad = k.nonFiniteBlocks(this.#raw, this.#count / GGML_BLOCK, GGML_BLOCK_BYTES[dtype])
      return bad < 0 ? bad : bad * GGML_BLOCK
    }
    // Rounds to float32; larger values become infinite.
    this.#floats.set(new Float64Array(this.#buffer, this.#raw, this.#count))
    this.#hasWide = true
    return k.nonFinite32(this.#wide, this.#count)
  }

  /** Copies a block that is already packed. */
  place(target: SharedArrayBuffer, ptr: number): void {
    this.#copy(target, ptr, this.#raw, this.#count)
  }

  /** Packs the part of a piece that the block holds. Returns -1, or the index of an element that is too large for the format. */
  pack(piece: MatrixPiece, target: SharedArrayBuffer): number {
    const task = this.#current
    const first = Math.max(piece.row, task.firstRow)
    const rows = Math.min(piece.row + piece.rows, task.firstRow + task.rows) - first
    if (rows <= 0) return -1
    const skipped = first - piece.row
    const area = { row: first - task.firstRow, rows, col: piece.col, cols: piece.cols }
    const kept = isBlocked(task.dtype) && keepsBlocks(piece) ? WEIGHT_FORMATS[piece.format].kept[task.dtype] : undefined
    if (kept) {
      this.#placeBlocks(piece, target, area, piece.packedRow + skipped, kept)
      return -1
    }
    const { largest } = WEIGHT_FORMATS[piece.format]
    const tooLarge = largest === Number.POSITIVE_INFINITY ? -1 : this.#k.firstAbove(this.#widen(), this.#count, largest)
    if (tooLarge >= 0) return tooLarge
    if (piece.transposed) this.#packTransposed(piece, target, area, skipped)
    else this.#packRows(piece, target, area, piece.packedRow + skipped)
    return -1
  }

  /** Writes a part of a vector multiplied by its factor. */
  vector({ ptr, start, count, factor }: VectorPiece, target: SharedArrayBuffer): void {
    this.#widen()
    const source = this.#floats
    const out = new Float32Array(target, ptr, count)
    for (let i = 0; i < count; i++) out[i] = Math.fround(source[start + i] as number) * factor
  }

  #packRows(piece: MatrixPiece, target: SharedArrayBuffer, area: Rectangle, packedRow: number): void {
    const { tileRows } = WEIGHT_FORMATS[piece.format]
    const whole = piece.packedCol === 0 && piece.cols === piece.packedCols
    const lead = whole ? Math.min(area.rows, (tileRows - (packedRow % tileRows)) % tileRows) : area.rows
    const tiles = Math.floor((area.rows - lead) / tileRows)
    const rest = lead + tiles * tileRows
    this.#packElements(piece, target, { ...area, rows: lead }, packedRow, piece.packedCol)
    if (tiles > 0) {
      this.#packTiles(piece.format, area.row + lead, area.col, tiles, piece.cols)
      const at = piece.ptr + packedBytes(packedRow + lead, piece.packedCols, piece.format)
      this.#copy(target, at, this.#out, packedBytes(tiles * tileRows, piece.packedCols, piece.format))
    }
    this.#packElements(piece, target, { ...area, row: area.row + rest, rows: area.rows - rest }, packedRow + rest, piece.packedCol)
  }

  /** GGML's blocks to those of a format that holds the same values. */
  #placeBlocks(piece: MatrixPiece, target: SharedArrayBuffer, area: Rectangle, packedRow: number, kept: KeptBlocks): void {
    const { format, ptr, packedCol, packedCols } = piece
    const { cols, dtype } = this.#current
    const { tileRows } = WEIGHT_FORMATS[format]
    const blockBytes = GGML_BLOCK_BYTES[dtype as BlockedType]
    const stride = (cols / GGML_BLOCK) * blockBytes
    const src = this.#raw + area.row * stride + (area.col / GGML_BLOCK) * blockBytes
    const whole = packedCol === 0 && area.cols === packedCols
    const lead = whole ? Math.min(area.rows, (tileRows - (packedRow % tileRows)) % tileRows) : area.rows
    const tiles = Math.floor((area.rows - lead) / tileRows)
    if (tiles > 0) {
      kept.placeTiles(this.#k, src + lead * stride, stride, tiles, area.cols / GGML_BLOCK, this.#out)
      this.#copy(target, ptr + packedBytes(packedRow + lead, packedCols, format), this.#out, packedBytes(tiles * tileRows, packedCols, format))
    }
    const view = new DataView(target)
    const placeRows = (first: number, end: number) => {
      for (let row = first; row < end; row++) {
        for (let b = 0; b < area.cols / GGML_BLOCK; b++) {
          const block = new Uint8Array(this.#buffer, src + row * stride + b * blockBytes, blockBytes)
          kept.placeBlock(view, ptr, packedRow + row, packedCol + b * GGML_BLOCK, packedCols, block)
        }
      }
    }
    placeRows(0, lead)
    placeRows(lead + tiles * tileRows, area.rows)
  }

  #packTiles(format: WeightFormat, row: number, col: number, tiles: number, cols: number): void {
    const { packSource, packTiles } = WEIGHT_FORMATS[format]
    const { src, stride } = this.#source(packSource, row, col)
    packTiles(this.#k, src, stride, tiles, cols, this.#out)
  }

  /** Address of a source element of that type, and bytes between source rows. */
  #source(type: FloatFormat, row: number, col: number): { src: number; stride: number } {
    const { cols } = this.#current
    const bytes = STORED_BYTES[type]
    return { src: (type === 'bf16' ? this.#narrow() : this.#widen()) + (row * cols + col) * bytes, stride: cols * bytes }
  }

  /** Source columns become packed rows, source rows packed columns from `skipped` on. */
  #packTransposed(piece: MatrixPiece, target: SharedArrayBuffer, area: Rectangle, skipped: number): void {
    const { format, packedCols } = piece
    const { tileRows, blockColumns, blockBytes, packSource, packColumns } = WEIGHT_FORMATS[format]
    const packedCol = piece.packedCol + skipped
    const tiles = piece.packedRow % tileRows === 0 ? Math.floor(area.cols / tileRows) : 0
    if (tiles > 0) {
      const { src, stride } = this.#source(packSource, area.row, area.col)
      packColumns(this.#k, src, stride, tiles, area.rows, this.#out)
      const tileBytes = packedBytes(tileRows, packedCols, format)
      const partBytes = packedBytes(tileRows, area.rows, format)
      const first = piece.ptr + packedBytes(piece.packedRow, packedCols, format) + (packedCol / blockColumns) * blockBytes
      for (let i = 0; i < tiles; i++) this.#copy(target, first + i * tileBytes, this.#out + i * partBytes, partBytes)
    }
    const done = tiles * tileRows
    this.#packElements(piece, target, { ...area, col: area.col + done, cols: area.cols - done }, piece.packedRow + done, packedCol)
  }

  #packElements(piece: MatrixPiece, target: SharedArrayBuffer, rectangle: Rectangle, packedRow: number, packedCol: number): void {
    if (rectangle.rows <= 0 || rectangle.cols <= 0) return
    const { format, ptr, packedCols, transposed } = piece
    const source = new Uint32Array(this.#buffer, this.#widen(), this.#count)
    const sourceCols = this.#current.cols
    WEIGHT_FORMATS[format].packElements(target, ptr, { source, sourceCols, rectangle, packedCols, packedRow, packedCol, transposed })
  }

  /** Byte offset of the block as float32. */
  #widen(): number {
    const { dtype } = this.#current
    if (dtype === 'f32') return this.#raw
    if (!this.#hasWide && dtype !== 'f64' && dtype !== 'u8') this.#k[WIDEN[dtype]](this.#raw, this.#wide, this.#count)
    this.#hasWide = true
    return this.#wide
  }

  /** Byte offset of the block as bfloat16. */
  #narrow(): number {
    if (this.#current.dtype === 'bf16') return this.#raw
    if (!this.#hasHalf) this.#k.narrowBf16(this.#widen(), this.#half, this.#count)
    this.#hasHalf = true
    return this.#half
  }

  #copy(target: SharedArrayBuffer, to: number, from: number, bytes: number): void {
    new Uint8Array(target, to, bytes).set(new Uint8Array(this.#buffer, from, bytes))
  }

  get #floats(): Float32Array {
    return new Float32Array(this.#buffer, this.#current.dtype === 'f32' ? this.#raw : this.#wide, this.#count)
  }

  get #buffer(): SharedArrayBuffer {
    return (this.#memory as WasmMemory).buffer
  }

  get #k(): WasmExports {
    return this.#kernels as WasmExports
  }

  get #current(): LoadTask {
    return this.#task as LoadTask
  }
}

const WIDEN = { bf16: 'widenBf16', f16: 'widenF16', q8_0: 'widenQ8', q4_0: 'widenQ4' } as const

/** Whether a block of the piece lies in a block of the packed matrix. */
function keepsBlocks({ transposed, col, cols, packedCol }: MatrixPiece): boolean {
  return !transposed && [col, cols, packedCol].every((at) => at % GGML_BLOCK === 0)
}

/** Rows and columns, in the packed matrix, of the part of a piece that one block can hold. */
function packedExtent(piece: MatrixPiece, task: LoadTask): [rows: number, cols: number] {
  const rows = Math.min(piece.rows, task.rows)
  return piece.transposed ? [piece.cols, rows] : [rows, piece.cols]
}
