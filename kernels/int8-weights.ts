// int8 weights: tiles of 16 rows x blocks of 32 columns, each row of a block with a scale and a sum (docs/determinism.md, rule 8).
// The kernels' side is wasm/assembly/int8.ts, which draws the block.
import { roundHalfEven } from './float-formats.js'
import { type BlockedType, GGML_BLOCK, integersOf, scaleOf } from './ggml-blocks.js'
import type { KeptBlocks, Placement, WeightFormatRecord, WgslColumns } from './weight-format.js'

const TILE_ROWS = 16
const BLOCK_COLUMNS = 32
const BLOCK_BYTES = 608
/** Byte offsets in a block: 16 float32, then 16 int16. */
const SCALES = 512
const SUMS = 576

/** Byte offset of the block that holds element (row, col). */
function blockOf(row: number, col: number, cols: number): number {
  return (Math.floor(row / TILE_ROWS) * Math.ceil(cols / BLOCK_COLUMNS) + Math.floor(col / BLOCK_COLUMNS)) * BLOCK_BYTES
}

/** Byte offset of a weight within its block. */
function positionOf(row: number, col: number): number {
  return ((col & 31) >> 2) * 64 + ((row & 15) >> 2) * 16 + (row & 3) * 4 + (col & 3)
}

const values = new Float32Array(BLOCK_COLUMNS)

/** Quantizes and packs. A block has one scale a row: max |w| / 127. */
function packElements(target: ArrayBufferLike, ptr: number, placement: Placement): void {
  const { source, sourceCols, rectangle, packedCols, packedRow, packedCol, transposed } = placement
  const floats = new Float32Array(source.buffer, source.byteOffset, source.length)
  const view = new DataView(target, ptr)
  const rows = transposed ? rectangle.cols : rectangle.rows
  const cols = transposed ? rectangle.rows : rectangle.cols
  const first = rectangle.row * sourceCols + rectangle.col
  const [rowStep, colStep] = transposed ? [1, sourceCols] : [sourceCols, 1]
  for (let r = 0; r < rows; r++) {
    const row = packedRow + r
    for (let c = 0; c < cols; c += BLOCK_COLUMNS) {
      const n = Math.min(BLOCK_COLUMNS, cols - c)
      let largest = 0
      for (let i = 0, at = first + r * rowStep + c * colStep; i < n; i++, at += colStep) {
        const v = floats[at] as number
        values[i] = v
        largest = Math.max(largest, Math.abs(v))
      }
      const block = blockOf(row, packedCol + c, packedCols)
      const inverse = largest > 0 ? 127 / largest : 0
      let sum = 0
      for (let i = 0; i < n; i++) {
        const q = roundHalfEven((values[i] as number) * inverse)
        view.setInt8(block + positionOf(row, i), q)
        sum += q
      }
      view.setFloat32(block + SCALES + (row & 15) * 4, largest / 127, true)
      view.setInt16(block + SUMS + (row & 15) * 2, sum, true)
    }
  }
}

const integers = new Int8Array(GGML_BLOCK)

function keeps(type: BlockedType, placeTiles: KeptBlocks['placeTiles']): KeptBlocks {
  return {
    placeTiles,
    placeBlock: (target, ptr, row, col, cols, source) => {
      const block = ptr + blockOf(row, col, cols)
      integersOf(type, source, integers)
      integers.forEach((q, i) => void target.setInt8(block + positionOf(row, i), q))
      target.setFloat32(block + SCALES + (row & 15) * 4, scaleOf(source), true)
      target.setInt16(
        block + SUMS + (row & 15) * 2,
        integers.reduce((a, b) => a + b, 0),
        true,
      )
    },
  }
}

/** WGSL: 4 columns of activations, and of the norm's weights, from column c on; those past k are 0 (of the norm: any). */
export function blockColumnFunctions(normed: boolean): string {
  return `fn column4(at : u32, c : u32, k : u32) -> vec4<f32> {
  if (c + 4u <= k) { return vec4<f32>(xs[at + c], xs[at + c + 1u], xs[at + c + 2u], xs[at + c + 3u]); }
  var v = vec4<f32>(0.0);
  if (c < k) { v.x = xs[at + c]; } if (c + 1u < k) { v.y = xs[at + c + 1u]; } if (c + 2u < k) { v.z = xs[at + c + 2u]; }
  return v;
}
${
  normed
    ? `fn norm4(c : u32, k : u32) -> vec4<f32> {
  let last = k - 1u;
  return vec4<f32>(norm[min(c, last)], norm[min(c + 1u, last)], norm[min(c + 2u, last)], norm[min(c + 3u, last)]);
}`
    : ''
}`
}

/** A block of 32 columns has 32 threads: 8 groups of 4 columns x 4 quads of rows. */
const WGSL: WgslColumns = {
  threads: 32,
  count: '(k + 31u) / 32u',
  position: 'let inBlock = lid % 32u; let group = inBlock / 4u; let quad = inBlock % 4u;',
  lane: 'lid / 32u * 8u + group',
  sums: 1,
  load: 'let w0 = w[first + c * 38u + inBlock]; let scale = bitcast<vec4<f32>>(w[first + c * 38u + 32u + quad]);',
  use: (t, normed) => `{ let v = column4(xFirst + ${t}u * dims.x, c * 32u + group * 4u, k);
      ${normed ? `square${t} += dot(v, v); let x = v * norm4(c * 32u + group * 4u, k);` : 'let x = v;'}
      lo${t} = fma(scale, vec4<f32>(dot(unpack4xI8f(w0.x), x), dot(unpack4xI8f(w0.y), x), dot(unpack4xI8f(w0.z), x), dot(unpack4xI8f(w0.w), x)), lo${t}); }`,
  functions: (
    normed,
  ) => `fn unpack4xI8f(v : u32) -> vec4<f32> { return vec4<f32>(vec4<i32>(i32(v << 24u), i32(v << 16u), i32(v << 8u), i32(v)) >> vec4<u32>(24u)); }
${blockColumnFunctions(normed)}`,
}

export const INT8: WeightFormatRecord = {
  summary:
    'Integers of 8 bits with a scale for each row and block of 32 columns: 1.19 bytes a weight. On the CPU activations are quantized to 7 bits ' +
    'for each row and block of 32; on the GPU they stay float32. The embedding keeps a float copy; norms stay float32.',
  tolerance: 0.5 / 127,
  tensorTiles: false,
  tileRows: TILE_ROWS,
  blockColumns: BLOCK_COLUMNS,
  blockBytes: BLOCK_BYTES,
  matmul: 'matmulInt8',
  dotMatmul: 'matmulInt8Dot',
  gatherRow: undefined,
  wgsl: WGSL,
  floatTiles: undefined,
  packSource: 'f32',
  kept: { q8_0: keeps('q8_0', (k, ...args) => k.placeTilesQ8Int8(...args)), q4_0: keeps('q4_0', (k, ...args) => k.placeTilesQ4Int8(...args)) },
  largest: Number.POSITIVE_INFINITY,
  packTiles: (k, src, stride, tiles, cols, dst) => k.quantizeTiles(src, stride, 4, tiles, cols, dst),
  packColumns: (k, src, stride, tiles, rows, dst) => k.quantizeTiles(src, 4, stride, tiles, rows, dst),
  packElements,
  nonFinite: (k, src, bytes) => k.nonFiniteScales(src, bytes / BLOCK_BYTES),
  read: (memory, ptr, row, col, cols) => {
    const block = ptr + blockOf(row, col, cols)
    return memory.getInt8(block + positionOf(row, col)) * memory.getFloat32(block + SCALES + (row & 15) * 4, true)
  },
}
