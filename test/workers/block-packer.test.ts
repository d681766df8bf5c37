// Tiles packed by the kernels against the same rectangles packed element by element.
import test from 'ava'
import { bf16FromF32Bits, f16FromF32Bits, f32BitsFromF16 } from '../../kernels/float-formats.js'
import { prepareBackend } from '../../kernels/open-backend.js'
import { packedBytes } from '../../kernels/packing.js'
import type { WasmModule } from '../../kernels/wasm/webassembly.js'
import { WEIGHT_FORMAT_NAMES, WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import { BlockPacker } from '../../workers/loading/block-packer.js'
import type { LoadTask, MatrixPiece } from '../../workers/protocol.js'
import { randomNumbers } from '../support/fixtures.js'

const module = prepareBackend('wasm') as WasmModule

/** Stored bytes of a type, and the float32 bits that they stand for. */
function stored(dtype: LoadTask['dtype'], values: readonly number[]): { bytes: Uint8Array; bits: Uint32Array } {
  const bits = new Uint32Array(Float32Array.from(values).buffer)
  if (dtype === 'f32') return { bytes: new Uint8Array(bits.buffer), bits }
  if (dtype === 'f64') return { bytes: new Uint8Array(Float64Array.from(values).buffer), bits }
  const halves = Uint16Array.from(bits, dtype === 'bf16' ? bf16FromF32Bits : f16FromF32Bits)
  return { bytes: new Uint8Array(halves.buffer), bits: Uint32Array.from(halves, (h) => (dtype === 'bf16' ? h << 16 : f32BitsFromF16(h))) }
}

const base = { tensor: 'w', path: '', file: { size: 0, mtimeMs: 0, ino: 0 }, offset: 0, strided: undefined, vectors: [], direct: undefined }

for (const dtype of ['bf16', 'f16', 'f32', 'f64'] as const) {
  for (const format of WEIGHT_FORMAT_NAMES) {
    test(`${dtype} blocks to ${format} tiles: any rows, columns, cuts and transposes are what packing by element gives`, (t) => {
      const next = randomNumbers(dtype.length * 100 + format.length)
      const packer = new BlockPacker(module)
      for (const [rows, cols, row, pieceRows, col, pieceCols, firstRow, blockRows, packedRow] of [
        [1, 1, 0, 1, 0, 1, 0, 1, 0],
        [96, 40, 0, 96, 0, 40, 0, 96, 0],
        [100, 33, 3, 90, 0, 33, 35, 64, 0],
        [70, 9, 0, 70, 0, 9, 0, 70, 20],
        [130, 129, 10, 110, 7, 100, 42, 64, 12],
        [64, 300, 0, 64, 10, 200, 32, 32, 0],
      ] as const) {
        const values = Array.from({ length: rows * cols }, () => (next() - 0.5) * 10 ** (next() * 6 - 4))
        const { bytes, bits } = stored(dtype, values.slice(firstRow * cols, (firstRow + blockRows) * cols))
        for (const transposed of [false, true]) {
          // The loader cuts transposed pieces at whole blocks of columns only.
          if (transposed && (firstRow - row) % WEIGHT_FORMATS[format].blockColumns > 0) continue
          const packedCols = transposed ? pieceRows : pieceCols
          const packedRows = packedRow + (transposed ? pieceCols : pieceRows)
          const size = packedBytes(packedRows, packedCols, format) + 64
          const piece: MatrixPiece = {
            memory: { kind: 'shard', index: 0 },
            ptr: 64,
            format,
            packedCols,
            row,
            rows: pieceRows,
            col,
            cols: pieceCols,
            packedRow,
            packedCol: 0,
            transposed,
          }
          const task: LoadTask = { ...base, dtype, firstRow, rows: blockRows, cols, pieces: [] }
          const target = new SharedArrayBuffer(size)
          packer.begin({ ...task, pieces: [{ ...piece, buffer: target }] }).set(bytes)
          t.is(packer.check(), -1)
          packer.pack(piece, target)

          const expected = new SharedArrayBuffer(size)
          const first = Math.max(row, firstRow)
          const rectangle = { row: first - firstRow, rows: Math.min(row + pieceRows, firstRow + blockRows) - first, col, cols: pieceCols }
          const to = { packedCols, packedRow: packedRow + (transposed ? 0 : first - row), packedCol: transposed ? first - row : 0, transposed }
          WEIGHT_FORMATS[format].packElements(expected, 64, { source: bits, sourceCols: cols, rectangle, ...to })
          t.deepEqual(Buffer.from(target), Buffer.from(expected), `${rows} x ${cols}${transposed ? ' transposed' : ''}`)
        }
      }
    })
  }
}

const BLOCKS = { q8_0: 34, q4_0: 18 } as const

/** Random blocks of GGML: integers of the whole range, scales of any finite float16. */
function randomBlocks(type: 'q8_0' | 'q4_0', count: number, next: () => number): Uint8Array {
  const bytes = Uint8Array.from({ length: count * BLOCKS[type] }, () => Math.floor(next() * 256))
  for (let b = 0; b < count; b++) {
    const [low, high] = [b * BLOCKS[type], b * BLOCKS[type] + 1]
    // Subnormal scales and both zeros too.
    if (b % 7 === 0) bytes[high] = (bytes[high] as number) & 0x83
    if (b % 13 === 0) bytes.set([0, (bytes[high] as number) & 0x80], low)
    if (((bytes[high] as number) & 0x7c) === 0x7c) bytes[high] = (bytes[high] as number) & 0xbf
  }
  return bytes
}

/** What GGML's blocks stand for, by their description. */
function valuesOf(type: 'q8_0' | 'q4_0', bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return Float32Array.from({ length: (bytes.length / BLOCKS[type]) * 32 }, (_, i) => {
    const at = Math.floor(i / 32) * BLOCKS[type]
    const column = i % 32
    const half = view.getUint16(at, true)
    const [exponent, fraction] = [(half >> 10) & 31, half & 1023]
    const scale = (half & 0x8000 ? -1 : 1) * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
    if (type === 'q8_0') return scale * view.getInt8(at + 2 + column)
    return scale * (((view.getUint8(at + 2 + (column % 16)) >> (column < 16 ? 0 : 4)) & 15) - 8)
  })
}

for (const [type, formats] of [
  ['q8_0', ['int8', 'f32']],
  ['q4_0', ['int4', 'int8', 'f32']],
] as const) {
  for (const format of formats) {
    test(`${type} blocks in ${format} are the file's values exactly, in whole tiles and in rows and columns that fill none`, (t) => {
      const next = randomNumbers(type.length + format.length)
      const packer = new BlockPacker(module)
      for (const [rows, cols, row, pieceRows, col, pieceCols, packedRow, packedCol, packedCols] of [
        [32, 64, 0, 32, 0, 64, 0, 0, 64],
        [1, 32, 0, 1, 0, 32, 0, 0, 32],
        [75, 160, 5, 66, 32, 96, 0, 0, 96],
        [40, 96, 3, 37, 0, 96, 20, 0, 96],
        [40, 96, 0, 40, 32, 64, 7, 64, 128],
      ] as const) {
        const bytes = randomBlocks(type, (rows * cols) / 32, next)
        const values = valuesOf(type, bytes)
        const target = new SharedArrayBuffer(64 + packedBytes(packedRow + pieceRows, packedCols, format))
        const places = { row, rows: pieceRows, col, cols: pieceCols, packedRow, packedCol, packedCols, transposed: false }
        const piece: MatrixPiece = { memory: { kind: 'shard', index: 0 }, ptr: 64, format, ...places }
        packer.begin({ ...base, dtype: type, firstRow: 0, rows, cols, pieces: [{ ...piece, buffer: target }] }).set(bytes)
        t.is(packer.check(), -1)
        t.is(packer.pack(piece, target), -1)
        const view = new DataView(target)
        for (let r = 0; r < pieceRows; r++) {
          for (let c = 0; c < pieceCols; c++) {
            const stored = WEIGHT_FORMATS[format].read(view, 64, packedRow + r, packedCol + c, packedCols)
            // 0 and -0 are one value.
            t.is(stored + 0, (values[(row + r) * cols + col + c] as number) + 0, `${rows} x ${cols}: ${r}, ${c}`)
          }
        }
        if (format !== 'int8') continue
        // The kernel subtracts 64 times the sums.
        for (let r = 0; r < pieceRows; r++) {
          const to = packedRow + r
          const block = 64 + (Math.floor(to / 16) * (packedCols / 32) + packedCol / 32) * 608
          const scale = view.getFloat32(block + 512 + (to % 16) * 4, true)
          const sum = Array.from({ length: 32 }, (_, c) => values[(row + r) * cols + col + c] as number).reduce((a, b) => a + b, 0)
          if (scale !== 0) t.is(view.getInt16(block + 576 + (to % 16) * 2, true), Math.round(sum / scale) + 0)
        }
      }
    })
  }
}

test('a block of GGML whose scale is not finite, and a value that is too large for int4, are found at their place', (t) => {
  const packer = new BlockPacker(module)
  for (const [type, scale] of [
    ['q8_0', 0x7c00],
    ['q4_0', 0xfe01],
  ] as const) {
    const bytes = randomBlocks(type, 6, randomNumbers(3))
    new DataView(bytes.buffer).setUint16(4 * BLOCKS[type], scale, true)
    packer.begin({ ...base, dtype: type, firstRow: 0, rows: 3, cols: 64, pieces: [] }).set(bytes)
    t.is(packer.check(), 128)
  }
  const target = new SharedArrayBuffer(packedBytes(3, 11, 'int4'))
  const places = { row: 0, rows: 3, col: 0, cols: 11, packedRow: 0, packedCol: 0, packedCols: 11, transposed: false }
  const piece: MatrixPiece = { memory: { kind: 'shard', index: 0 }, ptr: 0, format: 'int4', ...places }
  for (const [value, index] of [
    [524_032, -1],
    [-524_033, 31],
  ] as const) {
    const values = Array.from({ length: 33 }, (_, i) => (i === 31 ? value : i))
    packer.begin({ ...base, dtype: 'f32', firstRow: 0, rows: 3, cols: 11, pieces: [{ ...piece, buffer: target }] }).set(stored('f32', values).bytes)
    t.is(packer.check(), -1)
    t.is(packer.pack(piece, target), index)
  }
})

test('values that are not finite are found at their place, in every type', (t) => {
  const packer = new BlockPacker(module)
  for (const dtype of ['bf16', 'f16', 'f32', 'f64'] as const) {
    for (const at of [0, 7, 8, 30, 32]) {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, ...(dtype === 'f64' ? [1e39] : [])]) {
        const values = Array.from({ length: 33 }, (_, i) => (i === at ? bad : i / 7))
        packer.begin({ ...base, dtype, firstRow: 0, rows: 3, cols: 11, pieces: [] }).set(stored(dtype, values).bytes)
        t.is(packer.check(), at, `${dtype} ${bad} at ${at}`)
      }
    }
  }
})

for (const format of WEIGHT_FORMAT_NAMES) {
  test(`a packed ${format} weight is within the tolerance of its format, and zeros stay zeros`, (t) => {
    const { packElements, read, tolerance, blockColumns } = WEIGHT_FORMATS[format]
    const next = randomNumbers(8)
    const [rows, cols] = [40, 70]
    const values = Float32Array.from({ length: rows * cols }, (_, i) => (i < cols ? 0 : next() - 0.5))
    const memory = new ArrayBuffer(packedBytes(rows, cols, format))
    const rectangle = { row: 0, rows, col: 0, cols }
    const to = { packedCols: cols, packedRow: 0, packedCol: 0, transposed: false }
    packElements(memory, 0, { source: new Uint32Array(values.buffer), sourceCols: cols, rectangle, ...to })
    const view = new DataView(memory)
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        const first = c - (c % blockColumns)
        const block = Array.from(values.subarray(r * cols + first, r * cols + Math.min(cols, first + blockColumns)), Math.abs)
        const error = Math.abs(read(view, 0, r, c, cols) - (values[r * cols + c] as number))
        t.true(error <= Math.max(...block) * tolerance * 1.0001)
      }
    }
  })
}
