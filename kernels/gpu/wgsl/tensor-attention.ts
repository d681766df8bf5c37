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
/** Of the card that this was measured on; a multiprocessor has one workgroup of wide heads, or two. */
const MULTIPROCESSORS = 132
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
  return (g.tileVectors * tiling.buffers + groupHeads / 4 + 1) * 16 + (g.scores * 4 + g.weights * 2) * g.vector
}

/**
 * Heads of a group, and the tiling, for streams with `heads` heads each; undefined: these kernels can't do it, flash-attention.ts can.
 * Whether they can, and the order of sums, follow from the widths alone: a model has the same at every rank count.
 */
export function planTensorAttention(
  shape: TensorWidths,
  heads: number,
  workgroupStorage: number,
): { readonly groupHeads: number; readonly tiling: TensorTiling; readonly workgroups: number } | undefined {
  if (unitOf(shape) === undefined) return undefined
  // Two subgroups share the columns, as long as the registers do for one row of 16 heads.
  const matrices = (width: number, split: number) => Math.ceil(width / SIDE / split)
  const registers = (split: number) => 8 * matrices(pad(shape.valueWidth), split) + 4 * matrices(packedQueryWidth(shape), split)
  const split = [2, 4].find((n) => registers(n) <= REGISTERS)
  if (split === undefined) return undefined
  const pairs = 2 * registers(split) <= REGISTERS
  // Two tiles on their way where registers are left for them.
  const ahead = (pairs ? 2 : 1) * registers(split) <= REGISTERS / 2 + 16 ? 2 : 1
  for (let groupHeads = pad(Math.ceil(heads / Math.ceil(heads / MOST_HEADS))); groupHeads > 0; groupHeads -= SIDE) {
    const tiling = { tokens: SIDE, split, headTiles: pairs && groupHeads % (2 * SIDE) === 0 ? 2 : 1, ahead, buffers: 1 }
    if (storageOf(shape, groupHeads, tiling) <= workgroupStorage)
      return { groupHeads, tiling, workgroups: pairs ? 2 * MULTIPROCESSORS : MULTIPROCESSORS }
  }
  return undefined
}

/** Cached scalars that are read at once: 8, 4 or 2; undefined where rows lie on odd places. */
function unitOf({ rowWidth, ropeRowWidth, ropeDim, valueOffset, keyWidth, keyOffset }: TensorWidths): number | undefined {
  if (keyOffset !== 0 || (valueOffset !== 0 && valueOffset < keyWidth)) return undefined
  return [8, 4, 2].find((unit) => rowWidth % unit === 0 && valueOffset % unit === 0 && (ropeDim === 0 || ropeRowWidth % unit === 0))
}

function geometry(shape: TensorWidths, groupHeads: number, { tokens, headTiles, split }: TensorTiling) {
  const columns = columnsOf(shape)
  const headGroups = groupHeads / SIDE / headTiles
  const subgroups = headGroups * split
  const threads = LANES * subgroups
  /** Threads of one head in the softmax; each takes vectors of up to 4 tokens in turn. */
  const perHead = threads / groupHeads
  const vector = Math.min(4, tokens / perHead)
  // 16 bytes more than the columns, so that rows do not meet in the same banks; for the same reason scores have rows of 24 or 40.
  const rowVectors = columns.all / 8 + 1
  const scoreRow = tokens + 8
  const weightRow = tokens + 8
  return {
    columns,
    threads,
    perHead,
    vector,
    chunks: tokens / perHead / vector,
    rowVectors,
    tileVectors: tokens * rowVectors,
    scoreRow,
    weightRow,
    // In vectors. Scores of each part of the columns; scratch for rescaling.
    scores: Math.max(split * groupHeads * scoreRow, subgroups * SIDE * SIDE) / vector,
    weights: (groupHeads * weightRow) / vector,
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
  const { tokens: T, headTiles, split, ahead, buffers } = tiling
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
  const V = g.vector
  const scoreRow = g.scoreRow / V
  const weightRow = g.weightRow / V
  const perPage = PAGE / T
  /** First units of a page. */
  const streamBase = (page: string) => `(group.region + ${page} * ${PAGE * rowWidth}u) / ${unit}u`
  const ropeBase = (page: string) => `(${shape.ropeRegion}u + ${page} * ${PAGE * ropeRowWidth}u) / ${unit}u`
  /** Reads tile k of a page, of which so many tokens are left. */
  const fetch = (set: number, k: number, page: string) =>
    `${stream.fetch(set, `s_${page}`, `left_${page}`, k * T)} ${ropeDim > 0 ? rope.fetch(set, `r_${page}`, `left_${page}`, k * T) : ''}`
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
      ${times(blocks, (r) => times(headTiles, (i) => `subgroupMatrixStore<row_major>(&scores, (part_of * ${H}u + (heads_of * ${headTiles}u + ${i}u) * ${SIDE}u) * ${scoreRow}u + ${(r * SIDE) / V}u, c${r}_${i}, ${scoreRow}u);`))} }`
  const rescaling = `if (step > 0u && rescale.x == step) { let scratch = sg * ${(SIDE * SIDE) / V}u;
      ${times(headTiles, (i) =>
        times(
          valueSteps,
          (d) => `subgroupMatrixStore<row_major>(&scores, scratch, a${i}_${d}, ${SIDE / V}u); workgroupBarrier();
      { let f = factors[(heads_of * ${headTiles}u + ${i}u) * ${SIDE}u + lane / 2u]; for (var k = 0u; k < ${8 / V}u; k++) { scores[scratch + lane * ${8 / V}u + k] *= f; } } workgroupBarrier();
      a${i}_${d} = subgroupMatrixLoad<Sum, row_major>(&scores, scratch, ${SIDE / V}u); workgroupBarrier();`,
        ),
      )} }`
  const sums = (buffer: number) =>
    times(
      blocks,
      (
        r,
      ) => `{ ${times(headTiles, (i) => `let p${i} = subgroupMatrixLoad<Left, row_major>(&weights, (heads_of * ${headTiles}u + ${i}u) * ${SIDE * weightRow}u + ${(r * SIDE) / V}u, ${weightRow}u);`, ' ')}
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
  const tile = (k: number) => {
    const [set, buffer] = [k % ahead, k % buffers]
    const coming = k + ahead < perPage ? fetch(set, k + ahead, 'here') : fetch(set, k + ahead - perPage, 'next')
    return `{ ${stash(set, buffer)} ${barrier}
    ${coming}
    ${scores(buffer)} ${barrier} ${softmaxOver(shape, tiling, g, k)} ${barrier} ${rescaling}
    ${sums(buffer)} step++; ${buffers === 1 ? barrier : ''} }
    if (left_here <= ${(k + 1) * T}u) { break; }`
  }
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
var<workgroup> scores : array<vec${V}<f32>, ${g.scores}>;
var<workgroup> weights : array<${V === 4 ? 'vec2<u32>' : 'u32'}, ${g.weights}>;
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
  var m = -1.0e30; var l = 0.0; var step = 0u;
  if (lid == 0u) { rescale = vec4<u32>(0u); }
  // Of this page, and of the next: tokens left, first units. The page after it is looked up a page early.
  var left_here = end - start; var at_page = row.x + start / ${PAGE}u; let last_page = row.x + (end - 1u) / ${PAGE}u;
  let first_page = pages[at_page];
  var s_here = ${streamBase('first_page')}; ${ropeDim > 0 ? `var r_here = ${ropeBase('first_page')};` : ''}
  var next_page = pages[min(at_page + 1u, last_page)];
  ${stream.declare(ahead)} ${ropeDim > 0 ? rope.declare(ahead) : ''}
  ${times(ahead, (k) => fetch(k, k, 'here'))}
  let query = (row_index * ${slots}u + group.slot) * ${queryWidth / 8}u;
  ${times(headTiles, (i) => times(keySteps, (k) => `let q${i}_${k} = subgroupMatrixLoad<Left, row_major>(&q, query + (heads_of * ${headTiles}u + ${i}u) * ${SIDE * (queryWidth / 8)}u + min(part_of * ${keySteps}u + ${k}u, ${g.keySteps - 1}u) * 2u, ${queryWidth / 8}u);`, '\n  '), '\n  ')}
  ${times(headTiles, (i) => times(valueSteps, (d) => `var a${i}_${d} = Sum();`, ' '), ' ')}
  loop {
    let left_next = select(0u, left_here - ${PAGE}u, left_here > ${PAGE}u);
    let s_next = ${streamBase('next_page')}; ${ropeDim > 0 ? `let r_next = ${ropeBase('next_page')};` : ''}
    at_page++;
    next_page = pages[min(at_page + 1u, last_page)];
    ${times(perPage, tile)}
    left_here = left_next; s_here = s_next; ${ropeDim > 0 ? 'r_here = r_next;' : ''}
  }
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
 * From scores to weights, for tile k of a page. The sum of weights goes through a tree over the tile's tokens that is the same however
 * many threads share a head: within words of 4 tokens, then words half of all apart, a quarter, and so on.
 */
function softmaxOver(shape: TensorShape, { tokens: T, split }: TensorTiling, g: ReturnType<typeof geometry>, k: number): string {
  const { perHead, vector: V, chunks } = g
  const scoreRow = g.scoreRow / V
  const letters = ['x', 'y', 'z', 'w'].slice(0, V)
  const score = (part: number, i: number) => `scores[${part * shape.groupHeads * scoreRow}u + h * ${scoreRow}u + ${i * perHead}u + j]`
  const perWord = 4 / V
  const wordThreads = perHead / perWord
  const sums: string[] = V === 2 ? ['s0 += subgroupShuffleXor(s0, 1u);'] : []
  for (let distance = T / 8; distance >= 1; distance /= 2) {
    if (distance < wordThreads) sums.push(`s0 += subgroupShuffleXor(s0, ${distance * perWord}u);`)
    else sums.push(...Array.from({ length: distance / wordThreads }, (_, i) => `s${i} += s${i + distance / wordThreads};`))
  }
  return `
    ${times(chunks, (i) => `var x${i} = (${times(split, (part) => score(part, i), ' + ')}) * ${shape.scale * LOG2_E};`, '\n    ')}
    if (left_here < ${(k + 1) * T}u) { ${times(chunks, (i) => letters.map((c, e) => `if (${k * T + e}u + (${i * perHead}u + j) * ${V}u >= left_here) { x${i}.${c} = -1.0e30; }`).join(' '), '\n      ')} }
    { var most4 = x0; ${times(chunks - 1, (i) => `most4 = max(most4, x${i + 1});`, ' ')}
    var most = ${V === 4 ? 'max(max(most4.x, most4.y), max(most4.z, most4.w))' : 'max(most4.x, most4.y)'};
    ${times(Math.log2(perHead), (n) => `most = max(most, subgroupShuffleXor(most, ${1 << n}u));`, ' ')}
    if (most > m + ${LAG}.0) { let alpha = exp2(m - most); m = most; l *= alpha; if (step > 0u) { rescale.x = step; } if (j == 0u) { factors[h] = alpha; } }
    else if (j == 0u) { factors[h] = 1.0; } }
    { ${times(
      chunks,
      (i) => `let e${i} = exp2(x${i} - m); var s${i} = ${V === 4 ? `(e${i}.x + e${i}.y) + (e${i}.z + e${i}.w)` : `e${i}.x + e${i}.y`};
    weights[h * ${g.weightRow / V}u + ${i * perHead}u + j] = ${V === 4 ? `vec2<u32>(pack2x16float(e${i}.xy), pack2x16float(e${i}.zw))` : `pack2x16float(e${i})`};`,
      '\n    ',
    )}
    ${sums.join(' ')} l += s0; }`
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

  /** Into the registers of a set: rows from `first` on of the page whose first unit is `base`; from row `left` of the page on, zeros. */
  fetch(set: number, base: string, left: string, first: number): string {
    const { threads, unitType } = this.#l
    const n = this.#name
    const from = (j: number) =>
      this.#even
        ? `${n}_from + ${(this.#rowStep(j) + first) * this.#rowUnits}u`
        : `(${this.#row(j)} + ${first}u) * ${this.#rowUnits}u + (lid + ${j * threads}u) % ${this.#units}u`
    return times(this.#loads, (j) => {
      const bounds = [this.#inTile(j), `${this.#row(j)} + ${first}u < ${left}`].filter((c) => c !== undefined).join(' && ')
      return `${n}${set}_${j} = ${unitType}(); if (${bounds}) { ${n}${set}_${j} = cache[${base} + ${from(j)}]; }`
    })
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
