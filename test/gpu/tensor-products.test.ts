// Products on tensor cores, emulated: what they compute, and that no tiling changes a bit.
import test from 'ava'
import { OWN_BINDINGS, type ProductTiling, productThreads, tensorProduct } from '../../kernels/gpu/wgsl/tensor-matmul.js'
import {
  blockTable,
  panels,
  stepsOf,
  type TensorRows,
  TILE_VECTORS,
  VECTORS_PER_SCALE,
  weightVectors,
} from '../../kernels/gpu/wgsl/tensor-matmul-shape.js'
import { type TilingChoice, tilingsOf } from '../../kernels/gpu/wgsl/tensor-matmul-tiling.js'
import {
  headRows,
  ownRows,
  packRows,
  plainRows,
  type RowSource,
  regionsOfGroup,
  regionTable,
  sumRows,
  swigluRows,
} from '../../kernels/gpu/wgsl/tensor-rows.js'
import { repackTable, repackWeights } from '../../kernels/gpu/wgsl/tensor-weights.js'
import { joinTiles } from '../../workers/gpu/tensor-products.js'
import { randomNumbers } from '../support/fixtures.js'
import { quickIf } from '../support/tier.js'
import { emulate } from '../support/wgsl-emulator.js'

/** 16-byte words that kernels may read past the last tile. */
const SLACK = 32 * TILE_VECTORS

/** Random values that bf16 holds exactly, of magnitudes from 2^-20 to 2^20 by row. */
function bf16Matrix(rows: number, cols: number, seed: number): Float32Array {
  const next = randomNumbers(seed)
  const values = Float32Array.from({ length: rows * cols }, (_, i) => (next() * 2 - 1) * 2 ** (((Math.floor(i / cols) * 7) % 41) - 20))
  const bits = new Uint32Array(values.buffer)
  for (let i = 0; i < bits.length; i++) bits[i] = (bits[i] as number) & 0xffff0000
  return values
}

/** As the host packs bf16: tiles of 32 rows, column by column; halves of a word are rows 4 apart. */
function packBf16(values: Float32Array, rows: number, cols: number): Uint32Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer)
  const words = new Uint32Array(Math.ceil(rows / 32) * cols * 16)
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const at = (Math.floor(r / 32) * cols + c) * 16 + Math.floor((r % 32) / 8) * 4 + (r % 4)
      const bf16 = (bits[r * cols + c] as number) >>> 16
      words[at] = (words[at] as number) | (r % 8 < 4 ? bf16 : bf16 << 16)
    }
  }
  return words
}

interface Case {
  readonly rows: number
  readonly outputs: number
  readonly k: number
}

/** y of a product of random activations and weights, by the kernels, in one tiling; and its largest relative error. */
class Product {
  readonly #case: Case
  readonly #x: Float32Array<ArrayBuffer>
  readonly #w: Float32Array
  readonly #tiles: Uint32Array<ArrayBuffer>
  readonly #scales: Float32Array<ArrayBuffer>
  readonly #steps: number

  constructor(of: Case, seed: number) {
    const { rows, outputs, k } = of
    this.#case = of
    const next = randomNumbers(seed)
    this.#x = Float32Array.from({ length: rows * k }, (_, i) => (next() * 2 - 1) * 2 ** ((Math.floor(i / k) % 3) * 9))
    this.#w = bf16Matrix(outputs, k, seed + 1)
    this.#steps = stepsOf(k)
    const vectors = weightVectors(outputs, this.#steps)
    this.#tiles = new Uint32Array((vectors + SLACK) * 4)
    this.#scales = new Float32Array(vectors / VECTORS_PER_SCALE)
    const table = repackTable([{ from: 0, to: 0, rows: outputs, cols: k }])
    const buffers = { 0: packBf16(this.#w, outputs, k), 1: table as Uint32Array<ArrayBuffer>, 2: this.#tiles, 3: this.#scales, 4: new Uint32Array(4) }
    emulate(repackWeights(this.#steps)).run(buffers, [panels(outputs), 1, 1])
  }

  /** float32; or, as float16, rows of `stride` columns. */
  run(tiling: ProductTiling, pair: boolean, halves?: { readonly stride: number }, norm?: Float32Array<ArrayBuffer>): Float32Array {
    const { rows, outputs, k } = this.#case
    const steps = this.#steps
    const vectors = panels(rows) * steps * TILE_VECTORS * (pair ? 2 : 1)
    const tiles = new Uint32Array((vectors + SLACK) * 4)
    const scales = new Float32Array(rows)
    const regions = regionTable([{ from: 0, to: 0, scale: 0, cols: k }]) as Uint32Array<ArrayBuffer>
    const packing = { 0: regions, 1: tiles, 2: scales, 4: this.#x, ...(norm && { 3: norm }) }
    emulate(packRows({ regions: 1, steps, pair, epsilon: norm && 1e-5, source: plainRows(k) })).run(packing, [1, rows, 1])
    const y = new Float32Array(halves ? (rows * halves.stride) / 2 : rows * outputs).fill(halves ? 0 : Number.NaN)
    const matrix: TensorRows = { w: 0, x: 0, xScale: 0, y: 0, rows: outputs }
    const blocks = blockTable([matrix], tiling.columns, steps) as Uint32Array<ArrayBuffer>
    const buffers = {
      0: Uint32Array.of(0, halves?.stride ?? outputs, 0, 0),
      1: Uint32Array.of(rows, 0, 0, 0),
      2: this.#tiles,
      3: blocks,
      4: tiles,
      5: scales,
      6: this.#scales,
      7: y,
    }
    emulate(tensorProduct(steps, tiling, pair, halves !== undefined)).run(buffers, [Math.ceil(rows / tiling.rows), blocks.length / 8, 1])
    return y
  }

  /** The first rows, packed by the product itself; plain or normed. */
  runOwn(tiling: ProductTiling, pair: boolean, norm?: Float32Array<ArrayBuffer>, several = true): Float32Array {
    const { outputs, k } = this.#case
    const steps = this.#steps
    const own = ownRows({ steps, pair, epsilon: norm && 1e-5, source: plainRows(k) }, productThreads(tiling), several)
    const rows = Math.min(own.rows, this.#case.rows)
    const y = new Float32Array(rows * outputs).fill(Number.NaN)
    const matrix: TensorRows = { w: 0, x: 0, xScale: 0, y: 0, rows: outputs, source: { from: 0, cols: k } }
    const blocks = blockTable([matrix], tiling.columns, steps) as Uint32Array<ArrayBuffer>
    const product = [Uint32Array.of(0, outputs, 0, 0), Uint32Array.of(rows, 0, 0, 0), this.#tiles, blocks, undefined, undefined, this.#scales, y]
    const bound: Record<number, ArrayBufferView<ArrayBuffer>> = { 4: this.#x }
    if (norm) bound[3] = norm
    for (const [i, view] of product.entries()) if (view) bound[OWN_BINDINGS + i] = view
    emulate(tensorProduct(steps, tiling, pair, false, own)).run(bound, [1, blocks.length / 8, 1])
    return y
  }

  /** Largest error of an output, over the root of the sum of its squared products. */
  error(y: Float32Array): number {
    const { rows, outputs, k } = this.#case
    let largest = 0
    for (let r = 0; r < rows; r++) {
      for (let n = 0; n < outputs; n++) {
        let sum = 0
        let size = 0
        for (let c = 0; c < k; c++) {
          const product = (this.#x[r * k + c] as number) * (this.#w[n * k + c] as number)
          sum += product
          size += product * product
        }
        largest = Math.max(largest, Math.abs((y[r * outputs + n] as number) - sum) / Math.sqrt(size))
      }
    }
    return largest
  }
}

const CASES: readonly Case[] = [
  { rows: 1, outputs: 40, k: 70 },
  { rows: 19, outputs: 150, k: 100 },
]

for (const of of CASES) {
  const declare = quickIf(of.rows === 1)
  declare(`${of.rows} rows, ${of.outputs} outputs, ${of.k} columns: float16 of a row's own scale, the same bits in every tiling`, (t) => {
    const product = new Product(of, 3)
    for (const pair of [false, true]) {
      // Those for few outputs, for many, and for the most.
      const tilings = [16, 4000, 5000, 12_000, 19_760, 50_000].flatMap((outputs) => tilingsOf([outputs], pair).map(({ tiling }) => tiling))
      const [first, ...others] = tilings.map((tiling) => product.run(tiling, pair)) as [Float32Array, ...Float32Array[]]
      const error = product.error(first)
      t.log(`${pair ? 'two float16' : 'one float16'} a scalar: largest error ${error.toExponential(1)}`)
      t.true(error < (pair ? 1e-5 : 1e-3), String(error))
      for (const [i, other] of others.entries()) t.deepEqual(Buffer.from(other.buffer), Buffer.from(first.buffer), JSON.stringify(tilings[i + 1]))
    }
  })
}

// Regions that a subgroup packs alone, and those that a workgroup shares.
for (const { rows, outputs, k, only } of [
  { rows: 1, outputs: 40, k: 70, only: 4000 },
  { rows: 11, outputs: 40, k: 70, only: 4000 },
  { rows: 1, outputs: 17, k: 530, only: 16 },
  { rows: 1, outputs: 70, k: 530, only: 50_000 },
  { rows: 1, outputs: 70, k: 530, only: 19_760 },
]) {
  for (const normed of [false, true]) {
    const named = `${rows} rows of ${k} columns${normed ? ', normed,' : ''} that a product of ${outputs} outputs`
    test(`${named} packs itself in the tiling of ${only}: the bits of those that were packed before`, (t) => {
      const product = new Product({ rows, outputs, k }, 9)
      const next = randomNumbers(4)
      const norm = normed ? Float32Array.from({ length: k }, () => next() + 0.5) : undefined
      for (const pair of [false, true]) {
        const { tiling } = tilingsOf([only], pair)[0] as TilingChoice
        const own = product.runOwn(tiling, pair, norm)
        if (rows === 1) t.deepEqual(Buffer.from(product.runOwn(tiling, pair, norm, false).buffer), Buffer.from(own.buffer), 'a kernel of one row')
        t.deepEqual(Buffer.from(own.buffer), Buffer.from(product.run(tiling, pair, undefined, norm).buffer))
        t.true(own.every((y) => Number.isFinite(y)) && own.some((y) => y !== 0))
      }
    })
  }
}

for (const { rows, outputs } of [
  { rows: 3, outputs: 41 },
  { rows: 18, outputs: 70 },
]) {
  test(`${rows} rows of ${outputs} outputs as float16: what the float32 ones round to, and zeros after the last one`, (t) => {
    const product = new Product({ rows, outputs, k: 32 }, 5)
    const stride = 96
    for (const { tiling } of tilingsOf([4000], false)) {
      const whole = product.run(tiling, false)
      const halves = new DataView(product.run(tiling, false, { stride }).buffer)
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < stride; c++) {
          const got = f16(halves.getUint16((r * stride + c) * 2, true))
          const value = c < outputs ? (whole[r * outputs + c] as number) : 0
          // The largest finite one is 65504.
          if (Math.abs(value) < 65_504)
            t.true(Math.abs(got - value) <= Math.max(Math.abs(value) * 2 ** -11, 2 ** -25), `${r} ${c}: ${got} for ${value}`)
        }
      }
    }
  })
}

/** Values of rows of tiles, scaled back. */
function unpacked(tiles: Uint32Array, scales: Float32Array, row: number, cols: number, steps: number): number[] {
  const halves = new DataView(tiles.buffer)
  return Array.from({ length: cols }, (_, c) => {
    const at = ((Math.floor(row / 16) * steps + Math.floor(c / 16)) * 256 + (row % 16) * 16 + (c % 16)) * 2
    return f16(halves.getUint16(at, true)) * (scales[row] as number)
  })
}

function f16(bits: number): number {
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 1023
  return (bits & 0x8000 ? -1 : 1) * (exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15))
}

function packed(source: RowSource, buffers: readonly Float32Array<ArrayBuffer>[], cols: number, rows: number, norm?: Float32Array<ArrayBuffer>) {
  const steps = stepsOf(cols)
  const tiles = new Uint32Array(panels(rows) * steps * TILE_VECTORS * 4)
  const scales = new Float32Array(rows)
  const all: Record<number, ArrayBufferView<ArrayBuffer>> = {
    0: regionTable([{ from: 0, to: 0, scale: 0, cols }]) as Uint32Array<ArrayBuffer>,
    1: tiles,
    2: scales,
  }
  if (norm) all[3] = norm
  for (const [i, buffer] of buffers.entries()) all[4 + i] = buffer
  const code = packRows({ regions: 1, steps, pair: false, epsilon: norm ? 1e-6 : undefined, source })
  emulate(code).run(all, [Math.ceil(1 / regionsOfGroup(steps)), rows, 1])
  return Array.from({ length: rows }, (_, row) => unpacked(tiles, scales, row, cols, steps))
}

const close = (a: readonly number[], b: readonly number[]) => {
  const largest = Math.max(...b.map(Math.abs))
  return a.every((v, i) => Math.abs(v - (b[i] as number)) <= largest * 2 ** -11 + Math.abs(b[i] as number) * 2 ** -10)
}

test('rows are packed with what stands before a product: a sum of partials and RMS norm, SwiGLU, heads of several shards with a gate', (t) => {
  const next = randomNumbers(11)
  const random = (n: number) => Float32Array.from({ length: n }, () => next() * 4 - 2)
  const [rows, planeRows] = [3, 5]
  // Wide: a workgroup a region; narrow: a subgroup.
  for (const width of [40, 600]) {
    const [x, p, to, norm] = [random(rows * width), random(4 * planeRows * width), new Float32Array(rows * width), random(width)]
    const out = packed(sumRows(width, planeRows), [x, p, to], width, rows, norm)
    for (let r = 0; r < rows; r++) {
      const sum = Array.from({ length: width }, (_, c) => {
        const at = r * width + c
        return (x[at] as number) + [0, 1, 2, 3].reduce((s, plane) => s + (p[plane * planeRows * width + at] as number), 0)
      })
      t.true(sum.every((v, c) => Math.abs(v - (to[r * width + c] as number)) < 1e-5))
      const root = Math.sqrt(sum.reduce((s, v) => s + v * v, 0) / width + 1e-6)
      t.true(
        close(
          out[r] as number[],
          sum.map((v, c) => (v / root) * (norm[c] as number)),
        ),
        `norm of ${width}`,
      )
    }
  }
  const [width, planes] = [24, 2]
  const gates = random(rows * 2 * width * planes)
  const activated = packed(swigluRows(2 * width * planes, width), [gates], width * planes, rows)
  const gate = (r: number, c: number) => gates[r * 2 * width * planes + Math.floor(c / width) * 2 * width + (c % width)] as number
  const up = (r: number, c: number) => gates[r * 2 * width * planes + Math.floor(c / width) * 2 * width + (c % width) + width] as number
  for (let r = 0; r < rows; r++) {
    const expected = Array.from({ length: width * planes }, (_, c) => (gate(r, c) / (1 + Math.exp(-gate(r, c)))) * up(r, c))
    t.true(close(activated[r] as number[], expected), 'SwiGLU')
  }
  // Two heads of 8: the first in planes 0 and 2, the second in plane 1.
  const [p, places, g] = [random(4 * planeRows * 20), Float32Array.of(4, -1, 0, -1, -1, 12, -1, -1), random(rows * 30)]
  const shape = { width: 8, stride: 20, planeRows, planes: 4, factor: 0.5, gate: { stride: 30, from: 3 } }
  const heads = packed(headRows(shape), [p, places, g], 16, rows)
  for (let r = 0; r < rows; r++) {
    const at = (plane: number, c: number) => p[(plane * planeRows + r) * 20 + c] as number
    const expected = Array.from({ length: 16 }, (_, c) => {
      const sum = c < 8 ? at(0, 4 + c) + at(2, c) : at(1, 12 + c - 8)
      return (sum * 0.5) / (1 + Math.exp(-(g[r * 30 + 3 + c] as number)))
    })
    t.true(close(heads[r] as number[], expected), 'heads')
  }
})

test('tiles that follow each other are one matrix; those of other inputs, or elsewhere, are not', (t) => {
  const steps = stepsOf(64)
  const tall = weightVectors(32, steps)
  const tile = (word: number, x: number, y: number, rows: number) => ({ word, x, y, k: 64, rows })
  const tiles = [tile(0, 0, 0, 32), tile(tall, 0, 32, 32), tile(2 * tall, 0, 64, 8), tile(3 * tall, 0, 72, 32), tile(4 * tall, 64, 104, 32)]
  t.deepEqual(
    joinTiles(tiles, steps).map(({ word, y, rows }) => [word, y, rows]),
    [
      [0, 0, 72],
      [3 * tall, 72, 32],
      [4 * tall, 104, 32],
    ],
  )
})
