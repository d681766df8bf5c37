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

export interface TensorShape extends Omit<FlashShape, 'groups' | 'outHeads' | 'factors' | 'format' | 'queryStride' | 'ropeStride'> {
  readonly groups: readonly TensorGroup[]
  /** Heads of a group, a multiple of 16. */
  readonly groupHeads: number
  /** Slots of all groups. */
  readonly slots: readonly (HeadSlot | undefined)[]
}

/** How a workgroup's work is laid out. It changes speed, and the order of sums. */
export interface TensorTiling {
  /** Cached rows at a time: 16 or 32. */
  readonly tokens: number
  /** Rows of 16 heads that one subgroup has: 1 or 2. */
  readonly headTiles: number
  /** Subgroups that share the columns of the same heads: 1, 2 or 4. */
  readonly split: number
  /** Tiles of cached rows on their way from memory: 1 or 2. */
  readonly ahead: number
  /** 2: the next tile is stored while this one is computed with. */
  readonly buffers: number
}

/** Columns of a tile of cached rows: keys, values (the same where they begin at column 0), rope keys; padded to 16. */
function columnsOf({ keyWidth, valueOffset, valueWidth, ropeDim }: Pick<TensorShape, 'keyWidth' | 'valueOffset' | 'valueWidth' | 'ropeDim'>) {
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

/** Heads of the groups that `heads` heads of one stream are cut into. */
export function groupHeadsOf(heads: number): number {
  return pad(Math.ceil(heads / Math.ceil(heads / MOST_HEADS)))
}

/** What a workgroup needs of its memory, in bytes. */
function storageOf(shape: TensorShape, tiling: TensorTiling): number {
  const g = geometry(shape, tiling)
  return g.tileVectors * tiling.buffers * 16 + g.scores * g.vector * 4 + g.weights * g.vector * 2 + shape.groupHeads * 4 + 16
}

/** The tiling for a shape on a device; undefined: these kernels can't do it, flash-attention.ts can. */
export function tensorTiling(shape: TensorShape, workgroupStorage: number): TensorTiling | undefined {
  if (unitOf(shape) === undefined) return undefined
  const headTiles = shape.groupHeads % (2 * SIDE) === 0 ? 2 : 1
  for (const split of [2, 4]) {
    const matrices = (width: number) => Math.ceil(width / SIDE / split)
    const registers = headTiles * (8 * matrices(pad(shape.valueWidth)) + 4 * matrices(packedQueryWidth(shape)))
    if (registers > REGISTERS) continue
    for (const [buffers, ahead] of [
      [2, 1],
      [1, 1],
    ] as const) {
      const tiling = { tokens: SIDE, headTiles, split, ahead, buffers }
      if (storageOf(shape, tiling) <= workgroupStorage) return tiling
    }
  }
  return undefined
}

/** Cached scalars that are read at once: 8, 4 or 2; undefined where rows lie on odd places. */
function unitOf({ rowWidth, ropeRowWidth, ropeDim, valueOffset, keyWidth, keyOffset }: TensorShape): number | undefined {
  if (keyOffset !== 0 || (valueOffset !== 0 && valueOffset < keyWidth)) return undefined
  return [8, 4, 2].find((unit) => rowWidth % unit === 0 && valueOffset % unit === 0 && (ropeDim === 0 || ropeRowWidth % unit === 0))
}

function geometry(shape: TensorShape, { tokens, headTiles, split }: TensorTiling) {
  const { groupHeads } = shape
  const columns = columnsOf(shape)
  const headGroups = groupHeads / SIDE / headTiles
  const subgroups = headGroups * split
  const threads = LANES * subgroups
  /** Threads of one head in the softmax, and tokens of each. */
  const perHead = threads / groupHeads
  const each = tokens / perHead
  const vector = Math.min(4, each)
  // A row more than the columns: 16 bytes, so that rows do not meet in the same banks.
  const rowVectors = columns.all / 8 + 1
  let quads = tokens / 4
  while (quads % 8 !== 2 && quads % 8 !== 6) quads++
  const scoreRow = quads * 4
  const weightRow = tokens + 8
  return {
    columns,
    headGroups,
    threads,
    perHead,
    chunks: each / vector,
    vector,
    rowVectors,
    tileVectors: tokens * rowVectors,
    scoreRow,
    weightRow,
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
  const g = geometry(shape, tiling)
  const slots = shape.slots.length
  const unit = unitOf(shape) as number
  const unitType = { 8: 'vec4<u32>', 4: 'vec2<u32>', 2: 'u32' }[unit]
  const zero = unit === 2 ? '0u' : `${unitType}(0u)`
  const queryWidth = packedQueryWidth(shape)
  const Z = pad(valueWidth)
  // What a row loads: units of the stream's row, then of the rope key's.
  const streamUnits = Math.ceil(Math.max(keyWidth, valueOffset + valueWidth) / unit)
  const ropeUnits = Math.ceil(ropeDim / unit)
  const rowUnits = streamUnits + ropeUnits
  const loads = Math.ceil((T * rowUnits) / g.threads)
  const ragged = (T * rowUnits) % g.threads !== 0
  const { vector: V } = g
  const floats = V === 4 ? 'vec4<f32>' : 'vec2<f32>'
  const packed = V === 4 ? 'vec2<u32>' : 'u32'
  const components = V === 4 ? ['x', 'y', 'z', 'w'] : ['x', 'y']
  const scoreStride = g.scoreRow / V
  const weightStride = g.weightRow / V
  const keySteps = Math.ceil(g.keySteps / split)
  const valueSteps = Math.ceil(g.valueSteps / split)
  /** Columns that no subgroup's share divides evenly: the last one has fewer. */
  const guard = (steps: number, all: number, step: number, body: string) =>
    steps * split === all || step < all - steps * (split - 1) ? body : `if (part_of * ${steps}u + ${step}u < ${all}u) { ${body} }`

  /** Tile column of a unit of a loaded row. */
  const place = (col: string) => {
    const stream =
      valueOffset === 0
        ? `${col} * ${unit}u`
        : `select(${col} * ${unit}u, ${g.columns.valueAt}u + ${col} * ${unit}u - ${valueOffset}u, ${col} * ${unit}u >= ${valueOffset}u)`
    return ropeUnits === 0 ? stream : `select(${stream}, ${g.columns.ropeAt}u + (${col} - ${streamUnits}u) * ${unit}u, ${col} >= ${streamUnits}u)`
  }
  const guarded = (j: number) => ragged && j === loads - 1
  const address = (j: number) => `let row${j} = (lid + ${j * g.threads}u) / ${rowUnits}u; let col${j} = (lid + ${j * g.threads}u) % ${rowUnits}u;
  let column${j} = ${place(`col${j}`)}; let to${j} = row${j} * ${g.rowVectors}u + column${j} / 8u;${unit < 8 ? ` let in${j} = column${j} % 8u / 2u;` : ''}
  let from${j} = ${ropeUnits === 0 ? `row${j} * ${rowWidth / unit}u + col${j}` : `select(row${j} * ${rowWidth / unit}u + col${j}, row${j} * ${ropeRowWidth / unit}u + col${j} - ${streamUnits}u, col${j} >= ${streamUnits}u)`};
  ${times(ahead, (set) => `var r${set}_${j} = ${zero};`, ' ')}`
  /** Reads the tile that begins at token `at`, and the page of the one after it. */
  const fetch = (set: number, at: string) => `{ let at = ${at};
      let stream_base = (group.region + (next_page * ${PAGE}u + at % ${PAGE}u) * ${rowWidth}u) / ${unit}u;
      ${ropeUnits > 0 ? `let rope_base = (${shape.ropeRegion}u + (next_page * ${PAGE}u + at % ${PAGE}u) * ${ropeRowWidth}u) / ${unit}u;` : ''}
      ${times(loads, (j) => `r${set}_${j} = ${zero}; if (${guarded(j) ? `row${j} < ${T}u && ` : ''}at + row${j} < end) { r${set}_${j} = cache[${ropeUnits > 0 ? `select(stream_base, rope_base, col${j} >= ${streamUnits}u)` : 'stream_base'} + from${j}]; }`, '\n      ')}
      next_page = pages[row.x + min(at + ${T}u, end - 1u) / ${PAGE}u]; }`
  const stash = (set: number, buffer: number) =>
    times(loads, (j) => {
      const to = `tile[${buffer * g.tileVectors}u + to${j}]`
      const store =
        unit === 8
          ? `${to} = r${set}_${j};`
          : unit === 4
            ? `${to}[in${j}] = r${set}_${j}.x; ${to}[in${j} + 1u] = r${set}_${j}.y;`
            : `${to}[in${j}] = r${set}_${j};`
      return guarded(j) ? `if (row${j} < ${T}u) { ${store} }` : store
    })
  /** Vector of a tile where a key step of this subgroup begins: key columns, then rope columns. */
  const keyColumn = (k: number) => {
    const keyParts = pad(keyWidth) / SIDE
    const step = split === 1 ? `${k}u` : `(part_of * ${keySteps}u + ${k}u)`
    const gap = g.columns.ropeAt / SIDE - keyParts
    if (ropeDim === 0 || gap === 0) return `${step} * 2u`
    return `select(${step}, ${step} + ${gap}u, ${step} >= ${keyParts}u) * 2u`
  }
  const blocks = T / SIDE
  const scores = (buffer: number) => `{ ${times(blocks, (r) => times(headTiles, (t) => `var c${r}_${t} = Sum();`, ' '), ' ')}
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
        ${times(headTiles, (t) => `c${r}_${t} = subgroupMatrixMultiplyAccumulate(q${t}_${k}, b, c${r}_${t});`, ' ')} }`,
          ),
        ),
      )}
      ${times(blocks, (r) => times(headTiles, (t) => `subgroupMatrixStore<row_major>(&scores, (part_of * ${H}u + (heads_of * ${headTiles}u + ${t}u) * ${SIDE}u) * ${scoreStride}u + ${(r * SIDE) / V}u, c${r}_${t}, ${scoreStride}u);`))} }`
  const softmax = `
    ${times(g.chunks, (i) => `var x${i} = (${times(split, (k) => `scores[${k * H * scoreStride}u + h * ${scoreStride}u + ${i * g.perHead}u + j]`, ' + ')}) * ${shape.scale * LOG2_E};`, '\n    ')}
    if (t + ${T}u > end) { ${times(g.chunks, (i) => components.map((c, e) => `if (t + (${i * g.perHead}u + j) * ${V}u + ${e}u >= end) { x${i}.${c} = -1.0e30; }`).join(' '), '\n      ')} }
    { var most4 = x0; ${times(g.chunks - 1, (i) => `most4 = max(most4, x${i + 1});`, ' ')}
    var most = ${V === 4 ? 'max(max(most4.x, most4.y), max(most4.z, most4.w))' : 'max(most4.x, most4.y)'};
    ${times(Math.log2(g.perHead), (k) => `most = max(most, subgroupShuffleXor(most, ${1 << k}u));`, ' ')}
    if (most > m + ${LAG}.0) { let alpha = exp2(m - most); m = most; l *= alpha; if (step > 0u) { rescale.x = step; } if (j == 0u) { factors[h] = alpha; } }
    else if (j == 0u) { factors[h] = 1.0; } }
    ${times(g.chunks, (i) => `{ let e = exp2(x${i} - m); l += ${V === 4 ? '(e.x + e.y) + (e.z + e.w)' : 'e.x + e.y'}; weights[h * ${weightStride}u + ${i * g.perHead}u + j] = ${V === 4 ? 'vec2<u32>(pack2x16float(e.xy), pack2x16float(e.zw))' : 'pack2x16float(e)'}; }`, '\n    ')}`
  const rescaling = `if (step > 0u && rescale.x == step) {
      ${times(headTiles, (t) =>
        times(
          valueSteps,
          (d) => `subgroupMatrixStore<row_major>(&scores, sg * ${(SIDE * SIDE) / V}u, a${t}_${d}, ${SIDE / V}u); workgroupBarrier();
      { let f = factors[(heads_of * ${headTiles}u + ${t}u) * ${SIDE}u + lane / 2u]; for (var k = 0u; k < ${8 / V}u; k++) { scores[sg * ${(SIDE * SIDE) / V}u + lane * ${8 / V}u + k] *= f; } } workgroupBarrier();
      a${t}_${d} = subgroupMatrixLoad<Sum, row_major>(&scores, sg * ${(SIDE * SIDE) / V}u, ${SIDE / V}u); workgroupBarrier();`,
        ),
      )} }`
  const sums = (buffer: number) =>
    times(
      blocks,
      (
        r,
      ) => `{ ${times(headTiles, (t) => `let p${t} = subgroupMatrixLoad<Left, row_major>(&weights, (heads_of * ${headTiles}u + ${t}u) * ${SIDE * weightStride}u + ${(r * SIDE) / V}u, ${weightStride}u);`, ' ')}
      ${times(valueSteps, (d) =>
        guard(
          valueSteps,
          g.valueSteps,
          d,
          `{ let b = subgroupMatrixLoad<Right, row_major>(&tile, ${buffer * g.tileVectors + r * SIDE * g.rowVectors + g.columns.valueAt / 8 + d * 2}u${split > 1 ? ` + part_of * ${valueSteps * 2}u` : ''}, ${g.rowVectors}u);
        ${times(headTiles, (t) => `a${t}_${d} = subgroupMatrixMultiplyAccumulate(p${t}, b, a${t}_${d});`, ' ')} }`,
        ),
      )} }`,
    )
  const barrier = 'workgroupBarrier();'
  const one = (set: number) => `${stash(set, 0)} ${barrier}
    ${fetch(set, `t + ${ahead * T}u`)}
    ${scores(0)} ${barrier} ${softmax} ${barrier} ${rescaling}
    ${sums(0)} step++; ${barrier}`
  const two = (set: number, buffer: number) => `${scores(buffer)} ${barrier} ${softmax}
    ${stash(set, 1 - buffer)}
    ${fetch(set, `t + ${(1 + ahead) * T}u`)} ${barrier} ${rescaling}
    ${sums(buffer)} step++;`
  const next = `t += ${T}u; if (t >= end) { break; }`
  const loop =
    buffers === 2
      ? `${fetch(0, 'start')} ${stash(0, 0)} ${times(ahead, (k) => fetch((k + 1) % ahead, `start + ${(k + 1) * T}u`))} ${barrier}
  loop { { ${two(1 % ahead, 0)} } ${next} { ${two(0, 1)} } ${next} }`
      : `${times(ahead, (k) => fetch(k, `start + ${k * T}u`))}
  loop { { ${one(0)} } ${next} ${ahead === 2 ? `{ ${one(1)} } ${next}` : ''} }`
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
var<workgroup> scores : array<${floats}, ${g.scores}>;
var<workgroup> weights : array<${packed}, ${g.weights}>;
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
  ${times(loads, address, '\n  ')}
  let query = (row_index * ${slots}u + group.slot) * ${queryWidth / 8}u;
  ${times(headTiles, (i) => times(keySteps, (k) => `let q${i}_${k} = subgroupMatrixLoad<Left, row_major>(&q, query + (heads_of * ${headTiles}u + ${i}u) * ${SIDE * (queryWidth / 8)}u + min(part_of * ${keySteps}u + ${k}u, ${g.keySteps - 1}u) * 2u, ${queryWidth / 8}u);`, '\n  '), '\n  ')}
  ${times(headTiles, (i) => times(valueSteps, (d) => `var a${i}_${d} = Sum();`, ' '), ' ')}
  ${loop}
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
  ${times(Math.log2(g.perHead), (k) => `l += subgroupShuffleXor(l, ${1 << k}u);`, ' ')}
  if (j == 0u) { state[out + h] = vec2<f32>(m, l); }
}
`
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
