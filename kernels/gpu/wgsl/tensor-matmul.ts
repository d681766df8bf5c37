// Products of float16 weights and float16 activations on tensor cores (subgroup matrices of 16 x 16 x 16, float32 sums). A workgroup
// brings blocks of both to workgroup memory, through registers, and its subgroups share their products. The order of every sum is the
// same for every tiling, so which tiling a step takes changes its speed and never its bits.
import { SIDE, TILE_VECTORS, VECTORS_PER_SCALE } from './tensor-matmul-shape.js'
import { OWN_THREADS, type OwnRows } from './tensor-rows.js'

const LANES = 32
/** vec4<f32> of a 16 x 16 tile of sums. */
const SUM_VECTORS = 64

export interface ProductTiling {
  /** Outputs of a workgroup: rows of activations by rows of weights, both multiples of 16. */
  readonly rows: number
  readonly columns: number
  /** Subgroups that share them, and others that only load. */
  readonly down: number
  readonly across: number
  readonly helpers: number
  /** Steps of 16 columns of a block: 2, or a multiple of 4. */
  readonly steps: number
  /** Blocks in workgroup memory: 2 need a barrier less. */
  readonly buffers: 1 | 2
}

const times = (n: number, line: (i: number) => string, separator = '\n') => Array.from({ length: n }, (_, i) => line(i)).join(separator)

/** vec4<u32> of a row of a block: 16 bytes more than its columns, so that rows do not meet in the same banks. */
function rowVectors({ steps }: ProductTiling): number {
  return 2 * steps + 1
}

function tileVectors(tiling: ProductTiling, pair: boolean, own = false): number {
  const { rows, columns, buffers, down, across } = tiling
  const left = own ? 0 : rows * (pair ? 2 : 1)
  return Math.max(buffers * (left + columns) * rowVectors(tiling), down * across * SUM_VECTORS)
}

/** How much later the bindings of a product are that packs its row itself. */
export const OWN_BINDINGS = 8

/** Bytes of workgroup memory. */
export function productBytes(tiling: ProductTiling, pair: boolean, own?: OwnRows): number {
  return tileVectors(tiling, pair, own !== undefined) * 16 + (own ? own.bytes : 0)
}

/** Threads of a workgroup. */
export function productThreads({ down, across, helpers }: ProductTiling): number {
  return (down * across + helpers) * LANES
}

/**
 * steps: of 16 columns, of the whole sum. pair: activations are two float16 a scalar, whose products go to one sum. halves: y is float16,
 * two a word; its offsets are even, and what lies after an odd number of outputs becomes 0.
 * bindings: dims uniform [0, y stride, 0, 0], count uniform [rows], weights, blocks (tensor-matmul-shape.ts), activations, their scales,
 * scales of the weights' rows, y. Workgroups: groups of tiling.rows rows by blocks.
 * own: for up to own.rows rows of activations, which every workgroup packs itself; its bindings, and all others OWN_BINDINGS later,
 * without those of the activations.
 */
export function tensorProduct(steps: number, tiling: ProductTiling, pair: boolean, halves = false, own?: OwnRows): string {
  const { rows, columns, down, across, buffers } = tiling
  const P = pair ? 2 : 1
  const B = Math.min(tiling.steps, steps)
  const subgroups = down * across
  const threads = productThreads(tiling)
  const R = rows / SIDE / down
  const Q = columns / SIDE / across
  const stride = rowVectors(tiling)
  const leftVectors = own ? 0 : rows * P * stride
  const bufferVectors = leftVectors + columns * stride
  const perBlock = B * TILE_VECTORS
  const leftLoads = own ? 0 : (rows / SIDE) * perBlock * P
  const rightLoads = (columns / SIDE) * perBlock
  const blocks = Math.ceil(steps / B)
  /** A last block of fewer steps. */
  const rest = steps - (blocks - 1) * B
  if (own && (threads % OWN_THREADS !== 0 || rows !== SIDE || buffers !== 1)) throw new RangeError('no tiling for rows of its own')
  if (buffers === 2 && rest !== B) throw new RangeError(`two buffers need blocks of a divisor of ${steps} steps, not ${B}`)
  /** Loads of a thread: where from in the first block, and where to in a buffer. */
  const place = (name: 'a' | 'b', all: number, parts: number) =>
    times(Math.ceil(all / threads), (j) => {
      const index = `(lid + ${j * threads}u)`
      const panel = `${index} / ${perBlock * parts}u`
      const inPanel = `${index} % ${perBlock * parts}u`
      const source = name === 'a' ? `block.x + min(id.x * ${rows / SIDE}u + ${panel}, lastPanel)` : `block.w + min(${panel}, lastTile)`
      const row = `(${inPanel} / ${TILE_VECTORS}u % ${parts}u * ${rows}u + ${panel} * ${SIDE}u + ${inPanel} % ${TILE_VECTORS}u / 2u)`
      return `let ${name}From${j} = ${source} * ${steps * parts * TILE_VECTORS}u + ${inPanel};
  let ${name}To${j} = ${name === 'a' ? 0 : leftVectors}u + ${row} * ${stride}u + ${inPanel} / ${parts * TILE_VECTORS}u * 2u + ${index} % 2u;
  let ${name}In${j} = ${(j + 1) * threads <= all ? '' : `${index} < ${all}u && `}${name === 'a' ? `id.x * ${rows}u + ${panel} * ${SIDE}u + ${inPanel} % ${TILE_VECTORS}u / 2u < count.x` : 'true'};
  var ${name}${j} = vec4<u32>();`
    })
  const leftCount = Math.ceil(leftLoads / threads)
  const rightCount = Math.ceil(rightLoads / threads)
  const each = (line: (name: 'a' | 'b', j: number, parts: number) => string) =>
    `${times(leftCount, (j) => line('a', j, P), ' ')} ${times(rightCount, (j) => line('b', j, 1), ' ')}`
  const guarded = (name: 'a' | 'b', j: number, body: string) =>
    name === 'b' && (j + 1) * threads <= rightLoads ? body : `if (${name}In${j}) { ${body} }`
  /** Block `it` to registers; past the last step of the sum other bytes come, which nobody reads. */
  const fetch = (it: string) =>
    each((name, j, parts) => guarded(name, j, `${name}${j} = ${name === 'a' ? 'x' : 'w'}[${name}From${j} + ${it} * ${perBlock * parts}u];`))
  const stash = (buffer: number) => each((name, j) => guarded(name, j, `tile[${name}To${j} + ${buffer * bufferVectors}u] = ${name}${j};`))
  const loadLeft = (buffer: number, s: number, it: string, p: number, r: number) =>
    own
      ? `subgroupMatrixLoad<Left, row_major>(&own, ${own.at(p, `${it} * ${B}u + ${s}u`)}, ${own.stride}u)`
      : `subgroupMatrixLoad<Left, row_major>(&tile, left + ${buffer * bufferVectors + (p * rows + r * SIDE) * stride + s * 2}u, ${stride}u)`
  const compute = (buffer: number, n: number, it = '') =>
    times(
      n,
      (s) => `{ ${times(P, (p) => times(R, (r) => `let l${p}_${r} = ${loadLeft(buffer, s, it, p, r)};`, ' '), ' ')}
      ${times(
        Q,
        (q) => `{ let m = subgroupMatrixLoad<Right, col_major>(&tile, right + ${buffer * bufferVectors + q * SIDE * stride + s * 2}u, ${stride}u);
        ${times(P, (p) => times(R, (r) => `c${r}_${q} = subgroupMatrixMultiplyAccumulate(l${p}_${r}, m, c${r}_${q});`, ' '), ' ')} }`,
        '\n      ',
      )} }`,
    )
  const working = (body: string) => (tiling.helpers === 0 ? body : `if (sg < ${subgroups}u) { ${body} }`)
  const barrier = 'workgroupBarrier();'
  const loop =
    buffers === 1
      ? `for (var it = 0u; it < ${blocks - 1}u; it++) { ${stash(0)} ${barrier}
    ${fetch('(it + 1u)')}
    ${working(compute(0, B, 'it'))} ${barrier} }
  ${stash(0)} ${barrier} ${working(compute(0, rest, `${blocks - 1}u`))} ${barrier}`
      : `${stash(0)} ${barrier}
  for (var it = 0u; it < ${blocks - (blocks % 2)}u; it += 2u) {
    ${fetch('(it + 1u)')}
    ${working(compute(0, B))} ${stash(1)} ${barrier}
    if (it + 2u < ${blocks}u) { ${fetch('(it + 2u)')} }
    ${working(compute(1, B))} if (it + 2u < ${blocks}u) { ${stash(0)} } ${barrier}
  }
  ${blocks % 2 === 1 ? `${working(compute(0, rest))} ${barrier}` : ''}`
  const xScale = !own ? 'xScales[block.xScale + row]' : own.rows === 1 ? 'ownScales[0]' : 'ownScales[row]'
  const matrices = R * Q
  const batch = Math.max(1, Math.min(matrices, Math.floor(tileVectors(tiling, pair, own !== undefined) / (subgroups * SUM_VECTORS))))
  // Lanes next to each other write columns next to each other: whole sectors of memory, wherever a row of outputs begins.
  const out = (m: number, inBatch: number) => `{ let column = (across * ${Q}u + ${m % Q}u) * ${SIDE}u + lane % ${SIDE}u;
      if (column < block.rows) {
        let scale = wScales[block.w / ${VECTORS_PER_SCALE}u + column / ${SIDE}u * ${(steps * TILE_VECTORS) / VECTORS_PER_SCALE}u + column % ${SIDE}u];
        let panel = (id.x * ${rows / SIDE}u + down * ${R}u + ${Math.floor(m / Q)}u) * ${SIDE}u;
        ${times(
          (SIDE * SIDE) / LANES,
          (e) =>
            `{ let row = panel + lane / ${SIDE}u + ${(e * LANES) / SIDE}u; if (row < count.x) { y[block.y + row * dims.y + column] = bitcast<f32>(tile[(${inBatch * subgroups}u + sg) * ${SUM_VECTORS}u + lane / 4u + ${(e * LANES) / 4}u][lane % 4u]) * ${xScale} * scale; } }`,
          '\n        ',
        )}
      } }`
  const outHalves = (m: number, inBatch: number) => `{ let column = (across * ${Q}u + ${m % Q}u) * ${SIDE}u + lane % ${SIDE / 2}u * 2u;
      if (column < block.rows) {
        let at = block.w / ${VECTORS_PER_SCALE}u + column / ${SIDE}u * ${(steps * TILE_VECTORS) / VECTORS_PER_SCALE}u + column % ${SIDE}u; let scale = vec2<f32>(wScales[at], wScales[at + 1u]);
        let panel = (id.x * ${rows / SIDE}u + down * ${R}u + ${Math.floor(m / Q)}u) * ${SIDE}u;
        ${times(
          (SIDE * SIDE) / 2 / LANES,
          (e) =>
            `{ let row = panel + lane / ${SIDE / 2}u + ${(e * LANES * 2) / SIDE}u; if (row < count.x) { let at4 = (${inBatch * subgroups}u + sg) * ${SUM_VECTORS}u + lane / 2u + ${(e * LANES) / 2}u; let k = lane % 2u * 2u;
          let sum = bitcast<vec2<f32>>(vec2<u32>(tile[at4][k], tile[at4][k + 1u])) * ${xScale} * scale;
          y[(block.y + row * dims.y + column) / 2u] = pack2x16float(select(vec2<f32>(sum.x, 0.0), sum, column + 1u < block.rows)); } }`,
          '\n        ',
        )}
      } }`
  const write = Array.from({ length: Math.ceil(matrices / batch) }, (_, b) => {
    const first = b * batch
    const n = Math.min(batch, matrices - first)
    return `${working(times(n, (m) => `subgroupMatrixStore<row_major>(&tile, (${m * subgroups}u + sg) * ${SUM_VECTORS}u, c${Math.floor((first + m) / Q)}_${(first + m) % Q}, 4u);`, ' '))}
  ${barrier}
  ${working(times(n, (m) => (halves ? outHalves : out)(first + m, m), '\n  '))}
  ${first + n === matrices ? '' : barrier}`
  })
  const bind = (i: number) => `@group(0) @binding(${own ? OWN_BINDINGS + i : i})`
  return `enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix; enable chromium_disable_uniformity_analysis;
alias Left = subgroup_matrix_left<f16, ${SIDE}, ${SIDE}>; alias Right = subgroup_matrix_right<f16, ${SIDE}, ${SIDE}>; alias Sum = subgroup_matrix_result<f32, ${SIDE}, ${SIDE}>;
struct Block { w : u32, x : u32, y : u32, rows : u32, xScale : u32, source : u32, cols : u32, inverse : u32 }
${bind(0)} var<uniform> dims : vec4<u32>;
${bind(1)} var<uniform> count : vec4<u32>;
${bind(2)} var<storage, read> w : array<vec4<u32>>;
${bind(3)} var<storage, read> blocks : array<Block>;
${own ? own.declarations : `${bind(4)} var<storage, read> x : array<vec4<u32>>;\n${bind(5)} var<storage, read> xScales : array<f32>;`}
${bind(6)} var<storage, read> wScales : array<f32>;
${bind(7)} var<storage, read_write> y : array<${halves ? 'u32' : 'f32'}>;
// Blocks of activations and weights; sums on their way out.
var<workgroup> tile : array<vec4<u32>, ${tileVectors(tiling, pair, own !== undefined)}>;
@compute @workgroup_size(${threads})
fn main(@builtin(subgroup_id) sg : u32, @builtin(subgroup_invocation_id) lane : u32, @builtin(workgroup_id) id : vec3<u32>) {
  let lid = sg * ${LANES}u + lane;
  let block = blocks[id.y];
  let lastPanel = (count.x - 1u) / ${SIDE}u; let lastTile = (block.rows - 1u) / ${SIDE}u;
  let down = sg / ${across}u; let across = sg % ${across}u;
  ${own ? '' : place('a', leftLoads, P)}
  ${place('b', rightLoads, 1)}
  let left = down * ${R * SIDE * stride}u; let right = ${leftVectors}u + across * ${Q * SIDE * stride}u;
  ${times(R, (r) => times(Q, (q) => `var c${r}_${q} = Sum();`, ' '), ' ')}
  ${fetch('0u')}
  ${own ? `{ let region = block; ${own.fill} }` : ''}
  ${loop}
  ${write.join('\n  ')}
}
`
}
