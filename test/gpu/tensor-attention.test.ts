// No test machine has tensor cores. Dawn's null backend lists the features, so the kernels are compiled there; what they compute is
// emulated, and compared with attention in float64.
import { spawnSync } from 'node:child_process'
import test from 'ava'
import { f16FromF32Bits, f32BitsFromF16 } from '../../kernels/float-formats.js'
import { tensorAttention } from '../../kernels/gpu/wgsl/tensor-attention.js'
import { combineGroups, combineTensorParts, packQueries, slotTable } from '../../kernels/gpu/wgsl/tensor-parts.js'
import {
  packedQueryWidth,
  packedValueWidth,
  planPromptRows,
  slotsOf,
  type TensorShape,
  type TensorTiling,
} from '../../kernels/gpu/wgsl/tensor-shape.js'
import { ROOT, randomNumbers } from '../support/fixtures.js'
import { CACHED_ROWS, QUERY_ROWS, shapeOf, TENSOR_SHAPES } from '../support/tensor-shapes.js'
import { full, inFull, quickIf } from '../support/tier.js'
import { emulate } from '../support/wgsl-emulator.js'

const PAGE_TOKENS = 64
/** Pages of the cache in the order of the context: none is where its neighbour is. */
const TABLE = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]
/** Not a number: what a kernel must not read shows in every sum. */
const UNWRITTEN = 0x7e00

const words = new DataView(new ArrayBuffer(4))
const half = (value: number) => {
  words.setFloat32(0, value)
  return f16FromF32Bits(words.getUint32(0))
}
const single = (bits: number) => {
  words.setUint32(0, f32BitsFromF16(bits))
  return words.getFloat32(0)
}

interface Row {
  /** Tokens, and pages of each part. */
  readonly length: number
  readonly pagesPerPart: number
}

/** Queries of some rows and a cache with their context. */
interface EmulationOptions {
  readonly descending?: boolean
  /** Rows of an entry. */
  readonly together?: number
  readonly few?: boolean
  /** Workgroups along the parts; default: as many as parts. */
  readonly across?: number
}

class Attention {
  readonly rows: readonly Row[]
  readonly shape: TensorShape
  readonly #queries: Float32Array<ArrayBuffer>
  readonly #ropeQueries: Float32Array<ArrayBuffer>
  readonly #cache: Uint16Array<ArrayBuffer>
  readonly #table: Uint32Array<ArrayBuffer>

  constructor(shape: TensorShape, rows: readonly Row[], seed: number) {
    const parts = Math.max(...rows.map(partsOf))
    // Scores of late tokens are some 14 above the others: a maximum may lag by 8 powers of 2.
    this.shape = { ...shape, parts, scale: 2.3 / Math.sqrt(shape.keyWidth + shape.ropeDim) }
    this.rows = rows
    const next = randomNumbers(seed)
    const random = (n: number) => Float32Array.from({ length: n }, () => next() * 2 - 1)
    this.#queries = random(rows.length * shape.queryWidth)
    this.#ropeQueries = random(Math.max(1, rows.length * shape.ropeWidth))
    const longest = Math.max(...rows.map(({ length }) => length))
    this.#cache = new Uint16Array(shape.ropeRegion + CACHED_ROWS * shape.ropeRowWidth).fill(UNWRITTEN)
    for (let token = 0; token < longest; token++) {
      const magnitude = token > 70 ? 6 : 1
      for (const region of new Set(shape.groups.map((g) => g.region))) this.#write(region, shape.rowWidth, token, magnitude, next)
      this.#write(shape.ropeRegion, shape.ropeRowWidth, token, magnitude, next)
    }
    this.#table = Uint32Array.from(TABLE)
  }

  #place(region: number, width: number, token: number): number {
    return region + ((TABLE[Math.floor(token / PAGE_TOKENS)] as number) * PAGE_TOKENS + (token % PAGE_TOKENS)) * width
  }

  #write(region: number, width: number, token: number, magnitude: number, next: () => number): void {
    const at = this.#place(region, width, token)
    for (let i = 0; i < width; i++) this.#cache[at + i] = half((next() * 2 - 1) * magnitude)
  }

  /** [rows][groups][groupHeads][packedValueWidth], by the kernels; `together` rows an entry. */
  emulated(tiling: TensorTiling, options: EmulationOptions = {}): Float32Array {
    const { shape, rows } = this
    const { descending = false, together = 1, few = true, across = shape.parts } = options
    const heads = shape.slots.length
    const groups = shape.groups.length
    const width = packedValueWidth(shape.valueWidth)
    const table = Uint32Array.from(rows.flatMap((row) => [0, row.length, row.pagesPerPart, partsOf(row)]))
    // A tile of 16 heads may begin at the last one.
    const packed = new Uint32Array(((QUERY_ROWS * heads + 16) * packedQueryWidth(shape)) / 2)
    const count = Uint32Array.of(rows.length, 0, 0, 0)
    const entries = Array.from({ length: Math.ceil(rows.length / together) }, (_, e) => [
      e * together,
      Math.min(together, rows.length - e * together),
      0,
      0,
    ])
    const entryTable = Uint32Array.from(entries.flat())
    // Two rounds where there are several entries.
    const perRound = Math.ceil(entries.length / 2)
    const sizes = Uint32Array.of(perRound, shape.parts, entries.length, 0)
    const slots = perRound * shape.parts * groups * slotsOf(shape, together)
    const z = new Float32Array(slots * width).fill(Number.NaN)
    const state = new Float32Array(slots * 2).fill(Number.NaN)
    const out = new Float32Array(rows.length * groups * shape.groupHeads * width).fill(Number.NaN)
    const placed = new Uint32Array(slotTable(shape))
    const queries = { 0: count, 1: placed, 2: this.#queries, 3: this.#ropeQueries, 4: packed }
    emulate(packQueries(shape)).run(queries, [Math.ceil(packedQueryWidth(shape) / 2 / 64), heads, rows.length], descending)
    for (let k = 0; k * perRound < entries.length; k++) {
      const inRound = Math.min(perRound, entries.length - k * perRound)
      const round = Uint32Array.of(k, 0, 0, 0)
      const attention = { 0: table, 1: entryTable, 2: this.#table, 3: packed, 4: this.#cache, 5: z, 6: state, 7: round, 8: sizes }
      emulate(tensorAttention(shape, tiling, together)).run(attention, [across, groups, inRound], descending)
      const combining = { 0: table, 1: entryTable, 2: z, 3: state, 4: out, 5: round, 6: sizes }
      emulate(combineTensorParts(shape, together, few)).run(combining, [...combineGroups(shape, few), together * inRound], descending)
    }
    return out
  }

  /** The same of a head slot in float64, over queries in float16: [valueWidth]. */
  plain(row: number, slot: number): number[] {
    const { shape } = this
    const place = shape.slots[slot]
    const group = shape.groups[Math.floor(slot / shape.rowHeads)]
    if (!place || !group) throw new RangeError(`no head in slot ${slot}`)
    const query = (values: Float32Array, at: number, n: number) => Array.from(values.subarray(at, at + n), (v) => single(half(v)))
    const q = query(this.#queries, row * shape.queryWidth + place.query, shape.keyWidth)
    const qr = query(this.#ropeQueries, row * shape.ropeWidth + place.rope, shape.ropeDim)
    const dot = (vector: readonly number[], at: number) => vector.reduce((sum, v, i) => sum + v * single(this.#cache[at + i] as number), 0)
    const { length } = this.rows[row] as Row
    const scores = Array.from({ length }, (_, token) => {
      const rope = shape.ropeDim > 0 ? dot(qr, this.#place(shape.ropeRegion, shape.ropeRowWidth, token)) : 0
      return (dot(q, this.#place(group.region, shape.rowWidth, token)) + rope) * shape.scale
    })
    const most = Math.max(...scores)
    const weights = scores.map((s) => Math.exp(s - most))
    const sum = weights.reduce((a, b) => a + b)
    return Array.from({ length: shape.valueWidth }, (_, c) => {
      const value = (token: number) => single(this.#cache[this.#place(group.region, shape.rowWidth, token) + shape.valueOffset + c] as number)
      return weights.reduce((total, w, token) => total + w * value(token), 0) / sum
    })
  }

  /** Largest difference of the kernels' output from the plain one, over all heads and rows. */
  difference(out: Float32Array): number {
    const { slots, valueWidth, rowHeads, groupHeads, groups } = this.shape
    const width = packedValueWidth(valueWidth)
    let largest = 0
    for (const row of this.rows.keys()) {
      for (const [slot, place] of slots.entries()) {
        if (!place) continue
        const at = ((row * groups.length + Math.floor(slot / rowHeads)) * groupHeads + (slot % rowHeads)) * width
        // A NaN must not pass as equal.
        for (const [c, v] of this.plain(row, slot).entries()) largest = Math.max(largest, Math.abs((out[at + c] as number) - v))
      }
    }
    return largest
  }
}

const partsOf = ({ length, pagesPerPart }: Row) => Math.ceil(Math.ceil(length / PAGE_TOKENS) / pagesPerPart)

/** Several parts, a page that is not full, one token, exactly one page. */
const ROWS: readonly Row[] = [
  { length: 150, pagesPerPart: 1 },
  { length: 1, pagesPerPart: 1 },
  { length: 64, pagesPerPart: 2 },
  { length: 200, pagesPerPart: 2 },
]
/** Weights are float16: 2^-11 of a value, and values are up to 6. */
const TOLERANCE = 6e-3

test('the tensor-core kernels compile for wide and narrow heads, odd widths, several streams, and every tiling', (t) => {
  const { stdout, stderr } = spawnSync(process.execPath, [`${ROOT}dist/test/support/compile-on-null.js`], { encoding: 'utf8' })
  t.not(stdout, '', stderr)
  const { compiled, errors } = JSON.parse(stdout) as { compiled: number; errors: [string, string][] }
  t.deepEqual(errors, [])
  t.true(compiled >= 72)
})

const NARROW = TENSOR_SHAPES.filter(([, keyWidth]) => keyWidth < 30)
for (const widths of inFull ? TENSOR_SHAPES : NARROW) {
  test(`emulated, ${widths.join(' ')}: attention in float64, by parts of the context, over pages in any order`, (t) => {
    const { shape, planned } = shapeOf(...widths)
    const attention = new Attention(shape, ROWS.slice(0, NARROW.includes(widths) ? 4 : 1), 5)
    const out = attention.emulated(planned.tiling)
    const difference = attention.difference(out)
    t.log(`largest difference ${difference.toExponential(2)}`)
    t.true(difference < TOLERANCE, String(difference))
  })
}

full('emulated: bits follow from what fixes the order of sums, not from other tiling or the order in which invocations run', (t) => {
  const { shape, planned } = shapeOf(32, 22, 22, 0, 10, 1)
  const attention = new Attention(shape, ROWS.slice(0, 1), 6)
  const bits = (out: Float32Array) => Buffer.from(out.buffer)
  const columns = { ...planned.tiling, tokens: 16, scores: 'columns' } as const
  t.is(planned.tiling.walk, 'tiles')
  t.is(planned.tiling.scores, 'tokens')
  for (const tiling of [planned.tiling, columns]) {
    const expected = attention.emulated(tiling)
    t.true(attention.difference(expected) < TOLERANCE)
    t.deepEqual(bits(attention.emulated({ ...tiling, headTiles: 2 })), bits(expected), 'pairs of head tiles')
    t.deepEqual(bits(attention.emulated({ ...tiling, walk: 'pages' })), bits(expected), 'a page at a time')
    t.deepEqual(bits(attention.emulated(tiling, { across: 1 })), bits(expected), 'one workgroup for all parts')
    t.deepEqual(bits(attention.emulated(tiling, { across: 2 })), bits(expected), 'two workgroups that take parts in turn')
    t.deepEqual(bits(attention.emulated(tiling, { descending: true })), bits(expected), 'descending')
    t.deepEqual(bits(attention.emulated(tiling, { few: false })), bits(expected), 'a thread for every sum of parts')
  }
  t.true(attention.difference(attention.emulated({ ...columns, split: 4 })) < TOLERANCE)
})

for (const [valueWidth, streams, heads] of [
  [128, 2, 5],
  [160, 1, 3],
  [512, 1, 2],
] as const) {
  test(`emulated, ${valueWidth} columns: parts that lanes of a subgroup share are combined to the bits of a thread for every sum`, (t) => {
    const { shape } = shapeOf(heads, valueWidth, valueWidth, 0, 0, streams)
    const width = packedValueWidth(valueWidth)
    const next = randomNumbers(9)
    for (const parts of [1, 2, 8, 9, 16, 17, 31, 32]) {
      const slots = parts * streams * slotsOf(shape, 1)
      const z = Float32Array.from({ length: slots * width }, () => next() * 2 - 1)
      const state = Float32Array.from({ length: slots * 2 }, (_, i) => (i % 2 === 0 ? next() * 40 - 20 : 1 + next()))
      const [few, many] = [true, false].map((few) => {
        const out = new Float32Array(streams * shape.groupHeads * width).fill(7)
        const bound = { 0: Uint32Array.of(0, 0, 1, parts), 1: Uint32Array.of(0, 1, 0, 0), 2: z, 3: state, 4: out }
        const all = { ...bound, 5: new Uint32Array(4), 6: Uint32Array.of(1, parts, 1, 0) }
        emulate(combineTensorParts(shape, 1, few)).run(all, [...combineGroups(shape, few), 1])
        return Buffer.from(out.buffer)
      })
      t.deepEqual(few, many, `${parts} parts`)
    }
  })
}

/** Rows of a prompt: a page ends among them, and with it a part. */
const PROMPT: readonly Row[] = [125, 126, 127, 128, 129, 130, 131, 132, 133].map((length) => ({ length, pagesPerPart: 1 }))

for (const [heads, keyWidth, valueWidth, valueOffset, ropeDim, streams] of [
  [6, 22, 22, 0, 10, 2],
  [18, 18, 26, 18, 0, 1],
] as const) {
  const declare = quickIf(heads === 18)
  declare(`emulated, ${heads} heads of ${keyWidth}: rows of a prompt that share a workgroup have the bits that they have alone`, (t) => {
    const { shape, planned } = shapeOf(heads, keyWidth, valueWidth, valueOffset, ropeDim, streams)
    const prompt = planPromptRows(shape, shape.rowHeads, planned.tiling, 49_152)
    if (!prompt) throw new Error('no tiling for several rows')
    t.true(prompt.rows > 1)
    const attention = new Attention(shape, PROMPT, 8)
    const alone = attention.emulated(planned.tiling)
    t.true(attention.difference(alone) < TOLERANCE)
    t.deepEqual(Buffer.from(attention.emulated(prompt.tiling, { together: prompt.rows }).buffer), Buffer.from(alone.buffer))
  })
}
