// f32 and bf16 weights: tiles of 32 rows, column by column (docs/determinism.md, rule 1). The kernels' side is wasm/assembly/matmul.ts.
import { bf16FromF32Bits } from './float-formats.js'
import type { Placement, WeightFormatRecord, WgslColumns } from './weight-format.js'

/** Rows of a tile. The tiles of every format divide it, and a matrix's outputs are padded to a multiple of it. */
export const TILE_ROWS = 32

/** Position of row r (0..31) within a column. */
const F32_POSITION = Uint8Array.from({ length: TILE_ROWS }, (_, r) => r)
/** Low and high halves of a 32-bit lane hold rows 4 apart. */
export const BF16_POSITION = Uint8Array.from({ length: TILE_ROWS }, (_, r) => ((r >> 3) << 3) + ((r & 3) << 1) + ((r >> 2) & 1))

/** Index in elements of (row, col) from the matrix's first. */
function indexOf(position: Uint8Array, row: number, col: number, cols: number): number {
  return (row >> 5) * cols * TILE_ROWS + col * TILE_ROWS + (position[row & 31] as number)
}

/** Index of an element of an f32 matrix from its first. */
export function f32Index(row: number, col: number, cols: number): number {
  return indexOf(F32_POSITION, row, col, cols)
}

/** `target`: the matrix's elements; `narrow`: an element from float32 bits. */
function pack(target: Uint32Array | Uint16Array, position: Uint8Array, narrow: (bits: number) => number, placement: Placement): void {
  const { source, sourceCols, rectangle, packedCols, packedRow, packedCol, transposed } = placement
  for (let r = 0; r < rectangle.rows; r++) {
    const from = (rectangle.row + r) * sourceCols + rectangle.col
    for (let c = 0; c < rectangle.cols; c++) {
      const row = packedRow + (transposed ? c : r)
      const col = packedCol + (transposed ? r : c)
      target[indexOf(position, row, col, packedCols)] = narrow(source[from + c] as number)
    }
  }
}

/** x of one column; normed: times the norm's weight, its square added before. */
const activation = (t: number, normed: boolean) => {
  const x = `xs[xFirst + ${t}u * dims.x + c]`
  return normed ? `let v = ${x}; square${t} = fma(v, v, square${t}); let x = vec4<f32>(v * norm[c]);` : `let x = vec4<f32>(${x});`
}

const WGSL: Omit<WgslColumns, 'load'> = {
  threads: 4,
  count: 'k',
  position: 'let quad = lid % 4u;',
  lane: 'lid / 4u',
  sums: 2,
  use: (t, normed) => `{ ${activation(t, normed)} lo${t} = fma(low, x, lo${t}); hi${t} = fma(high, x, hi${t}); }`,
  functions: () => '',
}

export const F32: WeightFormatRecord = {
  summary: 'float32 as it is stored. 4 bytes a weight.',
  tolerance: 0,
  tensorTiles: false,
  tileRows: TILE_ROWS,
  blockColumns: 1,
  blockBytes: TILE_ROWS * 4,
  matmul: 'matmulF32',
  gatherRow: 'gatherRowF32',
  wgsl: {
    ...WGSL,
    load: 'let low = bitcast<vec4<f32>>(w[first + c * 8u + quad * 2u]); let high = bitcast<vec4<f32>>(w[first + c * 8u + quad * 2u + 1u]);',
  },
  floatTiles: { scale: 1, widen: (words) => words.slice() },
  packSource: 'f32',
  kept: {},
  largest: Number.POSITIVE_INFINITY,
  packTiles: (k, ...args) => k.packTiles32(...args),
  packColumns: (k, ...args) => k.packColumns32(...args),
  packElements: (target, ptr, placement) => pack(new Uint32Array(target, ptr), F32_POSITION, (bits) => bits, placement),
  nonFinite: (k, src, bytes) => k.nonFinite32(src, bytes / 4),
  read: (memory, ptr, row, col, cols) => memory.getFloat32(ptr + indexOf(F32_POSITION, row, col, cols) * 4, true),
}

const bits = new Uint32Array(1)
const float = new Float32Array(bits.buffer)

export const BF16: WeightFormatRecord = {
  summary: 'bfloat16, rounded to nearest even. 2 bytes a weight; sums are float32.',
  tolerance: 2 ** -8,
  tensorTiles: true,
  tileRows: TILE_ROWS,
  blockColumns: 1,
  blockBytes: TILE_ROWS * 2,
  matmul: 'matmulBf16',
  gatherRow: 'gatherRowBf16',
  wgsl: {
    ...WGSL,
    load: 'let w0 = w[first + c * 4u + quad]; let low = bitcast<vec4<f32>>(w0 << vec4<u32>(16u)); let high = bitcast<vec4<f32>>(w0 & vec4<u32>(0xffff0000u));',
  },
  floatTiles: { scale: 2, widen: widenTiles },
  packSource: 'bf16',
  kept: {},
  largest: Number.POSITIVE_INFINITY,
  packTiles: (k, ...args) => k.packTiles16(...args),
  packColumns: (k, ...args) => k.packColumns16(...args),
  packElements: (target, ptr, placement) => pack(new Uint16Array(target, ptr), BF16_POSITION, bf16FromF32Bits, placement),
  nonFinite: (k, src, bytes) => k.nonFinite16(src, bytes / 2, 0x7f80),
  read: (memory, ptr, row, col, cols) => {
    bits[0] = memory.getUint16(ptr + indexOf(BF16_POSITION, row, col, cols) * 2, true) << 16
    return float[0] as number
  },
}

/** bf16 tiles to f32 tiles: of each 4 words the low halves, then the high ones, are 8 rows in order. */
function widenTiles(words: Uint32Array): Uint32Array<ArrayBuffer> {
  const floats = new Uint32Array(words.length * 2)
  for (let i = 0; i < words.length; i++) {
    const at = (i - (i % 4)) * 2 + (i % 4)
    floats[at] = (words[i] as number) << 16
    floats[at + 4] = (words[i] as number) & 0xffff0000
  }
  return floats
}
