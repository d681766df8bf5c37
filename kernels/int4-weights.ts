// int4 weights: tiles of 16 rows x blocks of 32 columns, each row of a block with a scale (docs/determinism.md, rule 9).
// The kernels' side is wasm/assembly/int4.ts, which draws the block.
import { f16FromF32Bits, f32BitsFromF16, roundHalfEven } from './float-formats.js'
import { GGML_BLOCK, integersOf, scaleBitsOf } from './ggml-blocks.js'
import { blockColumnFunctions } from './int8-weights.js'
import type { Placement, WeightFormatRecord, WgslColumns } from './weight-format.js'

const TILE_ROWS = 16
const BLOCK_COLUMNS = 32
const BLOCK_BYTES = 288
/** Byte offset in a block: 16 float16. */
const SCALES = 256

/** Byte offset of the block that holds element (row, col). */
function blockOf(row: number, col: number, cols: number): number {
  return (Math.floor(row / TILE_ROWS) * Math.ceil(cols / BLOCK_COLUMNS) + Math.floor(col / BLOCK_COLUMNS)) * BLOCK_BYTES
}

/** Byte offset of a weight within its block, and its bits in that byte. */
function positionOf(row: number, col: number): { readonly byte: number; readonly shift: 0 | 4 } {
  const group = (col & 31) >> 2
  return { byte: (group & 3) * 64 + ((row & 15) >> 2) * 16 + (row & 3) * 4 + (col & 3), shift: group < 4 ? 0 : 4 }
}

function setWeight(view: DataView, block: number, row: number, col: number, q: number): void {
  const { byte, shift } = positionOf(row, col)
  const kept = view.getUint8(block + byte) & (0xf0 >> shift)
  view.setUint8(block + byte, kept | ((q + 8) << shift))
}

const float = new Float32Array(1)
const bits = new Uint32Array(float.buffer)

/** Quantizes and packs. A block has one scale a row: its largest value, sign included, over -8, rounded to float16. */
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
      const from = first + r * rowStep + c * colStep
      let largest = 0
      for (let i = 0; i < n; i++) {
        const v = floats[from + i * colStep] as number
        if (Math.abs(v) > Math.abs(largest) || Number.isNaN(v)) largest = v
      }
      float[0] = -largest / 8
      const scaleBits = f16FromF32Bits(bits[0] as number)
      bits[0] = f32BitsFromF16(scaleBits)
      const scale = float[0] as number
      const inverse = scale === 0 ? 0 : 1 / scale
      const block = blockOf(row, packedCol + c, packedCols)
      for (let i = 0; i < n; i++) {
        const q = Math.min(7, Math.max(-8, roundHalfEven((floats[from + i * colStep] as number) * inverse)))
        setWeight(view, block, row, i, q)
      }
      view.setUint16(block + SCALES + (row & 15) * 2, scaleBits, true)
    }
  }
}

const integers = new Int8Array(GGML_BLOCK)

/** Whose blocks have the same halves and scales. */
function placeBlock(target: DataView, ptr: number, row: number, col: number, cols: number, source: Uint8Array): void {
  const block = ptr + blockOf(row, col, cols)
  integersOf('q4_0', source, integers)
  integers.forEach((q, i) => void setWeight(target, block, row, i, q))
  target.setUint16(block + SCALES + (row & 15) * 2, scaleBitsOf(source), true)
}

/** A block of 32 columns has 32 threads: 8 groups of 4 columns x 4 quads of rows. Two groups share their words. */
const WGSL: WgslColumns = {
  threads: 32,
  count: '(k + 31u) / 32u',
  position: 'let inBlock = lid % 32u; let group = inBlock / 4u; let quad = inBlock % 4u;',
  lane: 'lid / 32u * 8u + group',
  sums: 1,
  load: `let w0 = w[first + c * 18u + (group % 4u) * 4u + quad] >> vec4<u32>((group / 4u) * 4u);
      let scale = scales4(w[first + c * 18u + 16u + quad / 2u], quad % 2u);`,
  use: (t, normed) => `{ let v = column4(xFirst + ${t}u * dims.x, c * 32u + group * 4u, k);
      ${normed ? `square${t} += dot(v, v); let x = v * norm4(c * 32u + group * 4u, k);` : 'let x = v;'}
      lo${t} = fma(scale, vec4<f32>(dot(halves4(w0.x), x), dot(halves4(w0.y), x), dot(halves4(w0.z), x), dot(halves4(w0.w), x)), lo${t}); }`,
  functions: (
    normed,
  ) => `fn halves4(v : u32) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(v, v >> 8u, v >> 16u, v >> 24u) & vec4<u32>(15u)) - vec4<i32>(8)); }
fn scales4(words : vec4<u32>, half : u32) -> vec4<f32> {
  var pair = words.xy;
  if (half == 1u) { pair = words.zw; }
  let half4 = vec4<u32>(pair.x & 0xffffu, pair.x >> 16u, pair.y & 0xffffu, pair.y >> 16u);
  let magnitude = half4 & vec4<u32>(0x7fffu);
  // Subnormal ones by an integer: a device may take a subnormal number for 0.
  let normal = bitcast<vec4<f32>>((magnitude << vec4<u32>(13u)) + vec4<u32>(0x38000000u));
  let value = select(normal, vec4<f32>(magnitude) * vec4<f32>(5.9604644775390625e-8), magnitude < vec4<u32>(0x400u));
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) | ((half4 & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}
${blockColumnFunctions(normed)}`,
}

export const INT4: WeightFormatRecord = {
  summary:
    'Integers of 4 bits with a float16 scale for each row and block of 32 columns: 0.56 bytes a weight. On the CPU activations are quantized ' +
    'to 8 bits for each row and block of 32; on the GPU they stay float32. The embedding keeps a float copy; norms stay float32.',
  // A value of the other sign that is as large as the largest becomes 7.
  tolerance: 1 / 8 + 2 ** -11,
  tensorTiles: false,
  tileRows: TILE_ROWS,
  blockColumns: BLOCK_COLUMNS,
  blockBytes: BLOCK_BYTES,
  matmul: 'matmulInt4',
  dotMatmul: 'matmulInt4Dot',
  gatherRow: undefined,
  wgsl: WGSL,
  floatTiles: undefined,
  packSource: 'f32',
  kept: { q4_0: { placeTiles: (k, ...args) => k.placeTilesQ4Int4(...args), placeBlock } },
  // Of a float16 scale.
  largest: 65504 * 8,
  packTiles: (k, src, stride, tiles, cols, dst) => k.quantizeTilesInt4(src, stride, 4, tiles, cols, dst),
  packColumns: (k, src, stride, tiles, rows, dst) => k.quantizeTilesInt4(src, 4, stride, tiles, rows, dst),
  packElements,
  nonFinite: (k, src, bytes) => k.nonFiniteScalesInt4(src, bytes / BLOCK_BYTES),
  read: (memory, ptr, row, col, cols) => {
    const block = ptr + blockOf(row, col, cols)
    const { byte, shift } = positionOf(row, col)
    bits[0] = f32BitsFromF16(memory.getUint16(block + SCALES + (row & 15) * 2, true))
    return (((memory.getUint8(block + byte) >> shift) & 15) - 8) * (float[0] as number)
  },
}
