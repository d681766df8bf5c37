// Kernels over fresh memory, and plain arrays in and out of it.
import type { BackendName, KernelBackend } from '../../kernels/backend.js'
import { bf16FromF32Bits } from '../../kernels/float-formats.js'
import { bufferOf, createMemory, openBackend, prepareBackend } from '../../kernels/open-backend.js'
import { type PackedMatrix, packedBytes } from '../../kernels/packing.js'
import type { Rows } from '../../kernels/rows.js'
import type { SimdLevel } from '../../kernels/wasm/simd-level.js'
import type { WeightFormat } from '../../kernels/weight-format.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'

export class TestBackend {
  readonly kernels: KernelBackend
  readonly buffer: SharedArrayBuffer
  #next = 64

  constructor(backend: BackendName, simd: SimdLevel = 'simd128', bytes = 8 << 20) {
    const memory = createMemory(backend, bytes)
    this.kernels = openBackend(prepareBackend(backend, simd), memory)
    this.buffer = bufferOf(memory)
    // Whatever a kernel does not write must not look like a result.
    this.kernels.scalars.fill(12345.678)
  }

  take(bytes: number): number {
    const at = this.#next
    this.#next += Math.ceil(bytes / 64) * 64
    if (this.#next > this.buffer.byteLength) throw new RangeError('the test kernels is full')
    return at
  }

  scalars(n: number): number {
    return this.take(n * this.kernels.scalarBytes)
  }

  /** Rows with room for `rows` rounded up to 4. */
  rows(values: readonly number[][] | number, width: number, stride = width): Rows {
    const count = typeof values === 'number' ? values : values.length
    const rows = this.kernels.rows(this.scalars(Math.ceil(count / 4) * 4 * stride + 64), width, stride)
    if (typeof values !== 'number') for (const [t, row] of values.entries()) rows.row(t).set(row)
    return rows
  }

  vector(values: readonly number[]): number {
    const at = this.take(values.length * 4)
    new Float32Array(this.buffer, at, values.length).set(values)
    return at
  }

  /** Packs [batch][rows][cols]. */
  matrix(values: readonly number[][][], format: WeightFormat, inStride = 0, outStride = 0): PackedMatrix {
    const rows = values[0]?.length ?? 0
    const cols = values[0]?.[0]?.length ?? 0
    const batchBytes = packedBytes(rows, cols, format)
    const ptr = this.take(batchBytes * values.length)
    new Uint8Array(this.buffer, ptr, batchBytes * values.length).fill(0)
    for (const [b, matrix] of values.entries()) {
      const source = new Uint32Array(Float32Array.from(matrix.flat()).buffer)
      const at = ptr + b * batchBytes
      const rectangle = { row: 0, rows, col: 0, cols }
      const placement = { source, sourceCols: cols, rectangle, packedCols: cols, packedRow: 0, packedCol: 0, transposed: false }
      WEIGHT_FORMATS[format].packElements(this.buffer, at, placement)
    }
    return { ptr, rows, cols, format, batch: values.length, batchBytes, inStride, outStride, bytes: batchBytes * values.length }
  }
}

/** float32 values with few bits, so that they are bfloat16 values too. */
export function bf16Values(values: number[]): number[] {
  const bits = new Uint32Array(Float32Array.from(values).buffer)
  return Array.from(new Float32Array(bits.map((b) => bf16FromF32Bits(b) << 16).buffer))
}

export function matrixOf(rows: number, cols: number, next: () => number): number[][] {
  return Array.from({ length: rows }, () => bf16Values(Array.from({ length: cols }, () => next() * 2 - 1)))
}

export function rowsOf(count: number, width: number, next: () => number): number[][] {
  return Array.from({ length: count }, () => Array.from({ length: width }, () => Math.fround(next() * 4 - 2)))
}

export function read(rows: Rows, count: number): number[][] {
  return Array.from({ length: count }, (_, t) => Array.from(rows.row(t)))
}
