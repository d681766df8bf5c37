// Flash decoding on tensor cores: what flash-attention.ts does, over an f16 cache, with the subgroup matrices that Dawn offers
// (16 x 16 x 16, f16 in, f32 out). Three kernels: queries to f16, a part of a row's context for a group of heads per workgroup, and
// the combining of the parts. Which bits a row gets depends on its own length alone (design rule 7).
//
// A workgroup holds its heads' queries in registers and walks through its part `tokens` cached rows at a time: the rows go to
// workgroup memory, scores = queries x rows, then an online softmax over them, then sums += weights x rows. Subgroups share the work by
// groups of 16 * headTiles heads and, within these, by columns (`split`). Nothing reads an element of a matrix directly: scores and
// weights pass through workgroup memory. Maxima lag: sums are rescaled only when a score exceeds the maximum by 2^LAG.
import { PAGE } from './cache-rows.js'
import type { FlashShape } from './flash-attention.js'

/** Heads of a workgroup, at most. */
const MOST_HEADS = 64
/** Side of a subgroup matrix. */
const SIDE = 16
const LANES = 32
/** A weight is at most 2^LAG in f16, whose largest value is 65504. */
const LAG = 8
const LOG2_E = 1.4426950408889634
/** Registers of one thread that matrices may take. */
const REGISTERS = 208

const pad = (n: number) => Math.ceil(n / SIDE) * SIDE
const times = (n: number, line: (i: number) => string, separator = '\n') => Array.from({ length: n }, (_, i) => line(i)).join(separator)

/** Up to MOST_HEADS heads that attend over one stream: first element of its region, and first head slot. */
export interface TensorGroup {
  readonly region: number
  readonly slot: number
}

/** A slot: a head's place in packed queries and in the output. Columns of its queries in their rows; rope -1: the slot is empty. */
export interface HeadSlot {
  readonly query: number
  readonly rope: number
}

/** What of a shape decides how it is computed. */
export type TensorWidths = Pick<FlashShape, 'keyWidth' | 'keyOffset' | 'valueOffset' | 'valueWidth' | 'ropeDim' | 'rowWidth' | 'ropeRowWidth'>

export interface TensorShape extends Omit<FlashShape, 'groups' | 'outHeads' | 'factors' | 'format' | 'queryStride' | 'ropeStride'> {
  readonly groups: readonly TensorGroup[]
  /** Heads of a group, a multiple of 16. */
  readonly groupHeads: number
  /** Slots of all groups. */
  readonly slots: readonly (HeadSlot | undefined)[]
}

/** How a workgroup's work is laid out. `tokens` and `split` fix the order of sums; the rest changes speed alone. */
export interface TensorTiling {
  /** Cached rows at a time: 16 or 32. */
  readonly tokens: number
  /** Subgroups that share the columns of the same heads: 2 or 4. */
  readonly split: number
  /** Rows of 16 heads that one subgroup has: 1 or 2. */
  readonly headTiles: number
  /** Tiles of cached rows on their way from memory: 1 or 2. */
  readonly ahead: number
  /** Tiles in workgroup memory: 2 need a barrier less. */
  readonly buffers: number
  /** 16-byte words from one head's scores to the next, at least tokens / 4. */
  readonly scoreRow: number
}

/** Columns of a tile of cached rows: keys, values (the same where they begin at column 0), rope keys; padded to 16. */
function columnsOf({ keyWidth, valueOffset, valueWidth, ropeDim }: TensorWidths) {
  const shared = valueOffset === 0
  const valueAt = shared ? 0 : pad(keyWidth)
  const ropeAt = shared ? pad(Math.max(keyWidth, valueWidth)) : valueAt + pad(valueWidth)
  return { valueAt, ropeAt, all: ropeAt + pad(ropeDim) }
}

/** Scalars of a packed query: key columns, then rope columns, each padded to 16. */
export function packedQueryWidth({ keyWidth, ropeDim }: Pick<TensorShape, 'keyWidth' | 'ropeDim'>): number {
  return pad(keyWidth) + pad(ropeDim)
}

/** Scalars of a head's weighted sum, as it is stored. */
export function packedValueWidth(valueWidth: number): number {
  return pad(valueWidth)
}

/** Bytes of workgroup memory. */
function storageOf(shape: TensorWidths, groupHeads: number, tiling: TensorTiling): number {
  const g = geometry(shape, groupHeads, tiling)
  return (g.tileVectors * tiling.buffers + g.scores + groupHeads / 4 + 1) * 16
}

/**
 * Heads of a group, and the tiling, for streams with `heads` heads each; undefined: these kernels can't do it, flash-attention.ts can.
 * Whether they can, and the order of sums, follow from the widths alone: a model has the same at every rank count.
 */
export function planTensorAttention(
  shape: TensorWidths,
  heads: number,
  workgroupStorage: number,
): { readonly groupHeads: number; readonly tiling: TensorTiling } | undefined {
  if (unitOf(shape) === undefined) return undefined
  const matrices = (width: number, split: number) => Math.ceil(width / SIDE / split)
  const registers = (split: number) => 2 * (8 * matrices(pad(shape.valueWidth), split) + 4 * matrices(packedQueryWidth(shape), split))
  const split = [2, 4].find((n) => registers(n) <= REGISTERS)
  if (split === undefined) return undefined
  // Two tiles on their way where registers are left for them.
  const ahead = registers(split) <= REGISTERS / 2 + 16 ? 2 : 1
  for (let groupHeads = pad(Math.ceil(heads / Math.ceil(heads / MOST_HEADS))); groupHeads > 0; groupHeads -= SIDE) {
    const tiling = { tokens: SIDE, split, headTiles: groupHeads % (2 * SIDE) === 0 ? 2 : 1, ahead, buffers: 1, scoreRow: 5 }
    if (storageOf(shape, groupHeads, tiling) <= workgroupStorage) return { groupHeads, tiling }
  }
  return undefined
}

/** Cached scalars that are read at once: 8, 4 or 2; undefined where rows lie on odd places. */
function unitOf({ rowWidth, ropeRowWidth, ropeDim, valueOffset, keyWidth, keyOffset }: TensorWidths): number | undefined {
  if (keyOffset !== 0 || (valueOffset !== 0 && valueOffset < keyWidth)) return undefined
  return [8, 4, 2].find((unit) => rowWidth % unit === 0 && valueOffset % unit === 0 && (ropeDim === 0 || ropeRowWidth % unit === 0))
}

function geometry(shape: TensorWidths, groupHeads: number, { tokens, headTiles, split, scoreRow }: TensorTiling) {
  const columns = columnsOf(shape)
  const headGroups = groupHeads / SIDE / headTiles
  const subgroups = headGroups * split
  const threads = LANES * subgroups
  /** Threads of one head in the softmax, and tokens of each. */
  const perHead = threads / groupHeads
  const each = tokens / perHead
  // A row more than the columns: 16 bytes, so that rows do not meet in the same banks.
  const rowVectors = columns.all / 8 + 1
  return {
    columns,
    threads,
    perHead,
    each,
    rowVectors,
    tileVectors: tokens * rowVectors,
    // Scores of each part of the columns. Weights take the place of the first part's; the others are scratch for rescaling.
    scores: Math.max(split * groupHeads * scoreRow, groupHeads * scoreRow + (subgroups * SIDE * SIDE) / 4),
    keySteps: packedQueryWidth(shape) / SIDE,
    valueSteps: pad(shape.valueWidth) / SIDE,
  }
}

/**
 * Queries of every slot as f16: [rows][slots][packedQueryWidth]. bindings: count uniform, slots [query column, rope column], queries,
 * rope queries (none without rope keys), packed. One thread per two scalars; workgroups: words by slots by rows.
 */
export function packQueries(shape: TensorShape): string {
  const width = packedQueryWidth(shape)
  const { keyWidth, ropeDim, queryWidth, ropeWidth } = shape
  const ropeFrom = pad(keyWidth)
  return `
@group(0) @binding(0) var<uniform> count : vec4<u32>;
@group(0) @binding(1) var<storage, read> slots : array<vec2<i32>>;
@group(0) @binding(2) var<storage, read> q : array<f32>;
${ropeDim > 0 ? '@group(0) @binding(3) var<storage, read> qr : array<f32>;' : ''}
@group(0) @binding(4) var<storage, read_write> packed : array<u32>;
fn value(row : u32, slot : vec2<i32>, c : u32) -> f32 {
  if (c < ${keyWidth}u) { return q[row * ${queryWidth}u + u32(slot.x) + c]; }
  ${ropeDim > 0 ? `if (c >= ${ropeFrom}u && c < ${ropeFrom + ropeDim}u) { return qr[row * ${ropeWidth}u + u32(slot.y) + c - ${ropeFrom}u]; }` : ''}
  return 0.0;
}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id : vec3<u32>) {
  if (id.x >= ${width / 2}u || id.z >= count.x) { return; }
  let slot = slots[id.y];
  let at = (id.z * ${shape.slots.length}u + id.y) * ${width / 2}u + id.x;
  if (slot.y < 0) { packed[at] = 0u; return; }
  packed[at] = pack2x16float(vec2<f32>(value(id.z, slot, 2u * id.x), value(id.z, slot, 2u * id.x + 1u)));
}
`
}

/** The slots as packQueries takes them. */
export function slotTable({ slots }: TensorShape): Uint32Array {
  return new Uint32Array(Int32Array.from(slots.flatMap((slot) => (slot ? [slot.query, slot.rope] : [0, -1]))).buffer)
}

/**
 * bindings: rows [table, length, pages a part, parts], pages, packed queries, cache, z, state, uniform [first row, 0, 0, 0].
 * z: [rows of the group of rows][parts][slots][packedValueWidth], unnormalized; state: maximum (in powers of 2) and sum of weights.
 * Workgroups: parts by groups by rows.
 */
export function tensorAttention(shape: TensorShape, tiling: TensorTiling): string {
  const { groups, groupHeads: H, keyWidth, valueOffset, valueWidth, ropeDim, rowWidth, ropeRowWidth, parts } = shape
  const { tokens: T, headTiles, split, ahead, buffers, scoreRow } = tiling
  const g = geometry(shape, H, tiling)
  const slots = shape.slots.length
  const unit = unitOf(shape) as number
  const unitType = { 8: 'vec4<u32>', 4: 'vec2<u32>', 2: 'u32' }[unit] as string
  const queryWidth = packedQueryWidth(shape)
  const Z = pad(valueWidth)
  const keySteps = Math.ceil(g.keySteps / split)
  const valueSteps = Math.ceil(g.valueSteps / split)
  /** Columns that no subgroup's share divides evenly: the last one has fewer. */
  const guard = (steps: number, all: number, step: number, body: string) =>
    steps * split === all || step < all - steps * (split - 1) ? body : `if (part_of * ${steps}u + ${step}u < ${all}u) { ${body} }`
  const loading = { tokens: T, threads: g.threads, unit, unitType, rowVectors: g.rowVectors, tileVectors: g.tileVectors }
  const streamUnits = Math.ceil(Math.max(keyWidth, valueOffset + valueWidth) / unit)
  const stream = new RowLoads(loading, 's', streamUnits, rowWidth, (column) =>
    valueOffset === 0 ? column : `select(${column}, ${g.columns.valueAt}u + ${column} - ${valueOffset}u, ${column} >= ${valueOffset}u)`,
  )
  const rope = new RowLoads(loading, 'r', Math.ceil(ropeDim / unit), ropeRowWidth, (column) => `${g.columns.ropeAt}u + ${column}`)
  /** Reads the tile that begins at token `at`, and the page of the one after it. */
  const fetch = (set: number, at: string) => `{ let at = ${at}; let left = select(0u, end - at, at < end);
      ${stream.fetch(set, `(group.region + (next_page * ${PAGE}u + at % ${PAGE}u) * ${rowWidth}u) / ${unit}u`)}
      ${ropeDim > 0 ? rope.fetch(set, `(${shape.ropeRegion}u + (next_page * ${PAGE}u + at % ${PAGE}u) * ${ropeRowWidth}u) / ${unit}u`) : ''}
      next_page = pages[row.x + min(at + ${T}u, end - 1u) / ${PAGE}u]; }`
  const stash = (set: number, buffer: number) => `${stream.stash(set, buffer)} ${ropeDim > 0 ? rope.stash(set, buffer) : ''}`
  /** Vector of a tile where a key step of this subgroup begins: key columns, then rope columns. */
  const keyColumn = (k: number) => {
    const keyParts = pad(keyWidth) / SIDE
    const step = `(part_of * ${keySteps}u + ${k}u)`
    const gap = g.columns.ropeAt / SIDE - keyParts
    if (ropeDim === 0 || gap === 0) return `${step} * 2u`
    return `select(${step}, ${step} + ${gap}u, ${step} >= ${keyParts}u) * 2u`
  }
  const blocks = T / SIDE
  const scores = (buffer: number) => `{ ${times(blocks, (r) => times(headTiles, (i) => `var c${r}_${i} = Sum();`, ' '), ' ')}
      ${times(keySteps, (k) =>
        guard(
          keySteps,
          g.keySteps,
          k,
          times(
            blocks,
            (
              r,
            ) => `{ let b = subgroupMatrixLoad<Right, col_major>(&tile, ${buffer * g.tileVectors + r * SIDE * g.rowVectors}u + ${keyColumn(k)}, ${g.rowVectors}u);
        ${times(headTiles, (i) => `c${r}_${i} = subgroupMatrixMultiplyAccumulate(q${i}_${k}, b, c${r}_${i});`, ' ')} }`,
          ),
        ),
      )}
      ${times(blocks, (r) => times(headTiles, (i) => `subgroupMatrixStore<row_major>(&scores, (part_of * ${H}u + (heads_of * ${headTiles}u + ${i}u) * ${SIDE}u) * ${scoreRow}u + ${r * 4}u, c${r}_${i}, ${scoreRow}u);`))} }`
  const softmax = softmaxOver(shape, tiling, g)
  const rescaling = `if (step > 0u && rescale.x == step) { let scratch = ${H * scoreRow}u + sg * 64u;
      ${times(headTiles, (i) =>
        times(
          valueSteps,
          (d) => `subgroupMatrixStore<row_major>(&scores, scratch, a${i}_${d}, 4u); workgroupBarrier();
      { let f = factors[(heads_of * ${headTiles}u + ${i}u) * ${SIDE}u + lane / 2u]; for (var k = 0u; k < 2u; k++) { let at = scratch + lane * 2u + k; scores[at] = bitcast<vec4<u32>>(bitcast<vec4<f32>>(scores[at]) * f); } } workgroupBarrier();
      a${i}_${d} = subgroupMatrixLoad<Sum, row_major>(&scores, scratch, 4u); workgroupBarrier();`,
        ),
      )} }`
  const sums = (buffer: number) =>
    times(
      blocks,
      (
        r,
      ) => `{ ${times(headTiles, (i) => `let p${i} = subgroupMatrixLoad<Left, row_major>(&scores, (heads_of * ${headTiles}u + ${i}u) * ${SIDE * scoreRow}u + ${r * 2}u, ${scoreRow}u);`, ' ')}
      ${times(valueSteps, (d) =>
        guard(
          valueSteps,
          g.valueSteps,
          d,
          `{ let b = subgroupMatrixLoad<Right, row_major>(&tile, ${buffer * g.tileVectors + r * SIDE * g.rowVectors + g.columns.valueAt / 8 + d * 2}u + part_of * ${valueSteps * 2}u, ${g.rowVectors}u);
        ${times(headTiles, (i) => `a${i}_${d} = subgroupMatrixMultiplyAccumulate(p${i}, b, a${i}_${d});`, ' ')} }`,
        ),
      )} }`,
    )
  const barrier = 'workgroupBarrier();'
  const tile = (set: number, buffer: number) => `{ ${stash(set, buffer)} ${barrier}
    ${fetch(set, `t + ${ahead * T}u`)}
    ${scores(buffer)} ${barrier} ${softmax} ${barrier} ${rescaling}
    ${sums(buffer)} step++; ${buffers === 1 ? barrier : ''} }
    t += ${T}u; if (t >= end) { break; }`
  return `enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix; enable chromium_disable_uniformity_analysis;
alias Left = subgroup_matrix_left<f16, ${SIDE}, ${SIDE}>; alias Right = subgroup_matrix_right<f16, ${SIDE}, ${SIDE}>; alias Sum = subgroup_matrix_result<f32, ${SIDE}, ${SIDE}>;
struct Group { region : u32, slot : u32 }
const GROUPS = array<Group, ${groups.length}>(${groups.map((group) => `Group(${group.region}u, ${group.slot}u)`).join(', ')});
@group(0) @binding(0) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> pages : array<u32>;
@group(0) @binding(2) var<storage, read> q : array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> cache : array<${unitType}>;
@group(0) @binding(4) var<storage, read_write> z : array<f32>;
@group(0) @binding(5) var<storage, read_write> state : array<vec2<f32>>;
@group(0) @binding(6) var<uniform> first : vec4<u32>;
// Every variable a multiple of 16 bytes: matrices are read wrong from other places.
var<workgroup> tile : array<vec4<u32>, ${g.tileVectors * buffers}>;
var<workgroup> scores : array<vec4<u32>, ${g.scores}>;
var<workgroup> factors : array<f32, ${H}>;
var<workgroup> rescale : vec4<u32>;
@compute @workgroup_size(${g.threads})
fn main(@builtin(subgroup_id) sg : u32, @builtin(subgroup_invocation_id) lane : u32, @builtin(workgroup_id) id : vec3<u32>) {
  let lid = sg * ${LANES}u + lane;
  let row_index = first.x + id.z;
  let row = rows[row_index];
  if (id.x >= row.w) { return; }
  var table = GROUPS;
  let group = table[id.y];
  let heads_of = sg / ${split}u; let part_of = sg % ${split}u;
  let h = lid / ${g.perHead}u; let j = lid % ${g.perHead}u;
  let start = id.x * row.z * ${PAGE}u; let end = min(row.y, start + row.z * ${PAGE}u);
  var m = -1.0e30; var l = 0.0; var step = 0u; var t = start;
  if (lid == 0u) { rescale = vec4<u32>(0u); }
  var next_page = pages[row.x + start / ${PAGE}u];
  ${stream.declare(ahead)} ${ropeDim > 0 ? rope.declare(ahead) : ''}
  ${times(ahead, (k) => fetch(k, `start + ${k * T}u`))}
  let query = (row_index * ${slots}u + group.slot) * ${queryWidth / 8}u;
  ${times(headTiles, (i) => times(keySteps, (k) => `let q${i}_${k} = subgroupMatrixLoad<Left, row_major>(&q, query + (heads_of * ${headTiles}u + ${i}u) * ${SIDE * (queryWidth / 8)}u + min(part_of * ${keySteps}u + ${k}u, ${g.keySteps - 1}u) * 2u, ${queryWidth / 8}u);`, '\n  '), '\n  ')}
  ${times(headTiles, (i) => times(valueSteps, (d) => `var a${i}_${d} = Sum();`, ' '), ' ')}
  loop { ${times(Math.max(ahead, buffers), (i) => tile(i % ahead, i % buffers))} }
  let out = (id.z * ${parts}u + id.x) * ${slots}u + group.slot;
  ${times(headTiles, (i) =>
    times(valueSteps, (d) =>
      guard(
        valueSteps,
        g.valueSteps,
        d,
        `subgroupMatrixStore<row_major>(&z, (out + (heads_of * ${headTiles}u + ${i}u) * ${SIDE}u) * ${Z}u + (part_of * ${valueSteps}u + ${d}u) * ${SIDE}u, a${i}_${d}, ${Z}u);`,
      ),
    ),
  )}
  if (j == 0u) { state[out + h] = vec2<f32>(m, l); }
}
`
}

/**
 * From scores to weights, in their place. A thread has `each` tokens of a head, in order; sums of weights go through a binary tree over
 * the tokens, so they do not depend on how many threads share a head.
 */
function softmaxOver(shape: TensorShape, { tokens: T, split, scoreRow }: TensorTiling, { perHead, each }: ReturnType<typeof geometry>): string {
  const H = shape.groupHeads
  // A thread reads a vector of up to 4 scores at once.
  const V = Math.min(4, each)
  const score = (part: number, token: number) => {
    const word = `scores[(${part * H}u + h) * ${scoreRow}u + (j * ${each}u + ${token}u) / 4u]`
    return V === 4
      ? `bitcast<vec4<f32>>(${word})`
      : `bitcast<vec2<f32>>(vec2<u32>(${word}[(j * ${each}u + ${token}u) % 4u], ${word}[(j * ${each}u + ${token}u) % 4u + 1u]))`
  }
  const letters = ['x', 'y', 'z', 'w'].slice(0, V)
  const chunks = each / V
  const tree = (terms: readonly string[]): string =>
    terms.length === 1 ? (terms[0] as string) : `(${tree(terms.slice(0, terms.length / 2))} + ${tree(terms.slice(terms.length / 2))})`
  const inChunk = (i: number) => letters.map((c) => `e${i}.${c}`)
  const half = (i: number, pair: number) => `pack2x16float(e${i}.${pair === 0 ? 'xy' : 'zw'})`
  const word = (i: number) => `(h * ${scoreRow}u + (j * ${each}u + ${i * V}u) / 8u)`
  const within = (i: number) => `(j * ${each}u + ${i * V}u) % 8u / 2u`
  return `
    ${times(chunks, (i) => `var x${i} = (${times(split, (k) => score(k, i * V), ' + ')}) * ${shape.scale * LOG2_E};`, '\n    ')}
    if (t + ${T}u > end) { ${times(chunks, (i) => letters.map((c, e) => `if (t + j * ${each}u + ${i * V + e}u >= end) { x${i}.${c} = -1.0e30; }`).join(' '), '\n      ')} }
    { var most4 = x0; ${times(chunks - 1, (i) => `most4 = max(most4, x${i + 1});`, ' ')}
    var most = ${V === 4 ? 'max(max(most4.x, most4.y), max(most4.z, most4.w))' : 'max(most4.x, most4.y)'};
    ${times(Math.log2(perHead), (k) => `most = max(most, subgroupShuffleXor(most, ${1 << k}u));`, ' ')}
    if (most > m + ${LAG}.0) { let alpha = exp2(m - most); m = most; l *= alpha; if (step > 0u) { rescale.x = step; } if (j == 0u) { factors[h] = alpha; } }
    else if (j == 0u) { factors[h] = 1.0; } }
    ${times(chunks, (i) => `let e${i} = exp2(x${i} - m); scores[${word(i)}][${within(i)}] = ${half(i, 0)};${V === 4 ? ` scores[${word(i)}][${within(i)} + 1u] = ${half(i, 1)};` : ''}`, '\n    ')}
    { var sum = ${tree(Array.from({ length: chunks }, (_, i) => inChunk(i)).flat())};
    ${times(Math.log2(perHead), (k) => `sum += subgroupShuffleXor(sum, ${1 << k}u);`, ' ')} l += sum; }`
}

interface Loading {
  readonly tokens: number
  readonly threads: number
  readonly unit: number
  readonly unitType: string
  readonly rowVectors: number
  readonly tileVectors: number
}

/** How the threads of a workgroup bring the rows of one region to a tile: `units` of a row each, through registers. */
class RowLoads {
  readonly #l: Loading
  readonly #name: string
  readonly #units: number
  readonly #rowUnits: number
  readonly #place: (column: string) => string
  readonly #loads: number
  /** Every thread always has the same column, and rows a fixed step apart. */
  readonly #even: boolean

  /** place: a tile's column for a column of the region's row. */
  constructor(l: Loading, name: string, units: number, rowWidth: number, place: (column: string) => string) {
    this.#l = l
    this.#name = name
    this.#units = units
    this.#rowUnits = rowWidth / l.unit
    this.#place = place
    this.#loads = Math.ceil((l.tokens * units) / l.threads)
    this.#even = l.threads % Math.max(1, units) === 0
  }

  #rowStep(j: number): number {
    return (j * this.#l.threads) / this.#units
  }

  /** Row, and column in scalars, of load j. */
  #row(j: number): string {
    return this.#even ? `${this.#name}_row + ${this.#rowStep(j)}u` : `(lid + ${j * this.#l.threads}u) / ${this.#units}u`
  }

  #column(j: number): string {
    return this.#even ? `lid % ${this.#units}u * ${this.#l.unit}u` : `(lid + ${j * this.#l.threads}u) % ${this.#units}u * ${this.#l.unit}u`
  }

  #inTile(j: number): string | undefined {
    return (j + 1) * this.#l.threads <= this.#l.tokens * this.#units ? undefined : `${this.#row(j)} < ${this.#l.tokens}u`
  }

  declare(sets: number): string {
    const { rowVectors, unitType } = this.#l
    const n = this.#name
    const registers = times(sets, (set) => times(this.#loads, (j) => `var ${n}${set}_${j} = ${unitType}();`, ' '), ' ')
    if (!this.#even) return registers
    return `let ${n}_row = lid / ${this.#units}u; let ${n}_from = ${this.#rowUnits === this.#units ? 'lid' : `${n}_row * ${this.#rowUnits}u + lid % ${this.#units}u`};
  let ${n}_column = ${this.#place(this.#column(0))}; let ${n}_to = ${n}_row * ${rowVectors}u + ${n}_column / 8u; ${registers}`
  }

  /** Into the registers of a set, from the row whose first unit is `base`; rows from `left` on become zeros. */
  fetch(set: number, base: string): string {
    const n = this.#name
    const from = (j: number) =>
      this.#even
        ? `${n}_from + ${this.#rowStep(j) * this.#rowUnits}u`
        : `${this.#row(j)} * ${this.#rowUnits}u + (lid + ${j * this.#l.threads}u) % ${this.#units}u`
    return `let ${n}_base = ${base};
      ${times(
        this.#loads,
        (j) => {
          const bounds = [this.#inTile(j), `${this.#row(j)} < left`].filter((c) => c !== undefined).join(' && ')
          return `${n}${set}_${j} = ${this.#l.unitType}(); if (${bounds}) { ${n}${set}_${j} = cache[${n}_base + ${from(j)}]; }`
        },
        '\n      ',
      )}`
  }

  /** From the registers of a set to a tile. */
  stash(set: number, buffer: number): string {
    const { rowVectors, tileVectors, unit } = this.#l
    const n = this.#name
    return times(this.#loads, (j) => {
      const column = this.#even ? `${n}_column` : `(${this.#place(this.#column(j))})`
      const to = this.#even
        ? `${n}_to + ${buffer * tileVectors + this.#rowStep(j) * rowVectors}u`
        : `${buffer * tileVectors}u + ${this.#row(j)} * ${rowVectors}u + ${column} / 8u`
      const value = `${n}${set}_${j}`
      const inVector = `${column} % 8u / 2u`
      const store =
        unit === 8
          ? `tile[${to}] = ${value};`
          : unit === 4
            ? `tile[${to}][${inVector}] = ${value}.x; tile[${to}][${inVector} + 1u] = ${value}.y;`
            : `tile[${to}][${inVector}] = ${value};`
      const bounds = this.#inTile(j)
      return bounds === undefined ? store : `if (${bounds}) { ${store} }`
    })
  }
}

/** Lanes that share the parts of one vector of columns, and vectors of a workgroup. */
const COMBINERS = 32
const COMBINED = 8

/**
 * Attention of the whole context from its parts. bindings: rows, z, state, out [rows][slots][packedValueWidth], uniform [first row, 0, 0, 0].
 * Each of COMBINERS lanes takes every COMBINERS-th part in ascending order, then lanes are added in a fixed tree.
 * Workgroups: slots by groups of 4 * COMBINED columns by rows.
 */
export function combineTensorParts({ valueWidth, slots, parts }: TensorShape): string {
  const threads = COMBINERS * COMBINED
  const vectors = pad(valueWidth) / 4
  const S = slots.length
  return `
@group(0) @binding(0) var<storage, read> rows : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> z : array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> state : array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> out : array<vec4<f32>>;
@group(0) @binding(4) var<uniform> first : vec4<u32>;
var<workgroup> scalars : array<f32, ${threads}>;
var<workgroup> vectors : array<vec4<f32>, ${threads}>;
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) id : vec3<u32>, @builtin(local_invocation_index) lid : u32) {
  let count = rows[first.x + id.z].w;
  let base = id.z * ${parts * S}u + id.x;
  var most = -3.0e38;
  for (var i = lid; i < count; i += ${threads}u) { most = max(most, state[base + i * ${S}u].x); }
  scalars[lid] = most;
  workgroupBarrier();
  for (var k = ${threads / 2}u; k > 0u; k >>= 1u) { if (lid < k) { scalars[lid] = max(scalars[lid], scalars[lid + k]); } workgroupBarrier(); }
  let m = scalars[0];
  workgroupBarrier();
  let column = id.y * ${COMBINED}u + lid % ${COMBINED}u;
  var sum = vec4<f32>(0.0); var weight = 0.0;
  if (column < ${vectors}u) {
    for (var i = lid / ${COMBINED}u; i < count; i += ${COMBINERS}u) {
      let at = base + i * ${S}u; let s = state[at]; let e = exp2(s.x - m);
      sum += e * z[at * ${vectors}u + column]; weight += e * s.y;
    }
  }
  vectors[lid] = sum; scalars[lid] = weight;
  workgroupBarrier();
  for (var k = ${threads / 2}u; k >= ${COMBINED}u; k >>= 1u) { if (lid < k) { vectors[lid] += vectors[lid + k]; scalars[lid] += scalars[lid + k]; } workgroupBarrier(); }
  if (lid < ${COMBINED}u && column < ${vectors}u) { out[((first.x + id.z) * ${S}u + id.x) * ${vectors}u + column] = vectors[lid] / scalars[lid]; }
}
`
}

/** Workgroups of combineTensorParts along columns. */
export function combineGroups(valueWidth: number): number {
  return Math.ceil(pad(valueWidth) / 4 / COMBINED)
}
