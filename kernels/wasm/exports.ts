// The exports of the WebAssembly kernels, as kernels/wasm/assembly declares and documents them. Pointers are byte offsets into the one
// memory of the instance; strides are in bytes; `tokens` counts rows of activations or cached rows.

type Matmul = (
  w: number,
  tiles: number,
  k: number,
  x: number,
  xStride: number,
  y: number,
  yStride: number,
  tokens: number,
  batch: number,
  wBatch: number,
  xBatch: number,
  yBatch: number,
  scratch: number,
) => void

/** Attention of a page: q, key, keyWidth, value, valueWidth and cStride describe the queries and the cached rows. */
type Attend = (
  q: number,
  key: number,
  keyWidth: number,
  value: number,
  valueWidth: number,
  cStride: number,
  pe: number,
  peStride: number,
  peRowHeads: number,
  scale: number,
  scores: number,
  state: number,
  z: number,
  zStride: number,
  heads: number,
  headLanes: number,
  tokens: number,
  most: number,
  rowHeads: number,
) => void

type AttendInt8 = (
  q: number,
  key: number,
  keyWidth: number,
  value: number,
  valueWidth: number,
  cStride: number,
  meta: number,
  valueMeta: number,
  pe: number,
  peStride: number,
  peRowHeads: number,
  scale: number,
  values: number,
  scores: number,
  state: number,
  z: number,
  zStride: number,
  heads: number,
  headLanes: number,
  tokens: number,
  most: number,
  rowHeads: number,
) => void

type AttendFactors = (
  q: number,
  key: number,
  keyWidth: number,
  value: number,
  valueWidth: number,
  valueBytes: number,
  cStride: number,
  rank: number,
  a: number,
  aStride: number,
  scale: number,
  dots: number,
  scores: number,
  state: number,
  z: number,
  zStride: number,
  heads: number,
  headLanes: number,
  tokens: number,
) => void

type Dot = (q: number, c: number, cStride: number, k: number, out: number, headLanes: number, tokens: number) => void
type CacheRowKernel = (dst: number, src: number, n: number, padded: number) => void
type GatherRow = (tile: number, row: number, k: number, dst: number) => void
type LoadHeads = (dst: number, src: number, stride: number, heads: number, headLanes: number, n: number, rows: number, rowStride: number) => void
type Convert = (src: number, dst: number, n: number) => void
type PackTiles = (src: number, stride: number, tiles: number, cols: number, dst: number) => void
type PlaceTiles = (src: number, stride: number, tiles: number, blocks: number, dst: number) => void

export type MatmulKernel = 'matmulF32' | 'matmulBf16' | 'matmulInt8' | 'matmulInt4' | 'matmulInt8Dot' | 'matmulInt4Dot'

export interface WasmExports extends Readonly<Record<MatmulKernel, Matmul>> {
  readonly addsDots: (n: number) => number
  readonly rmsNorm: (x: number, xStride: number, w: number, y: number, yStride: number, n: number, tokens: number, epsilon: number) => void
  readonly rope: (x: number, xStride: number, headStride: number, heads: number, half: number, table: number, tokens: number) => void
  readonly swiglu: (gate: number, up: number, stride: number, n: number, tokens: number) => void
  readonly gateRows: (x: number, xStride: number, gate: number, gateStride: number, n: number, tokens: number) => void
  readonly combineFactors: (
    dst: number,
    dstStride: number,
    a: number,
    aStride: number,
    b: number,
    bStride: number,
    heads: number,
    rank: number,
    width: number,
    tokens: number,
  ) => void
  readonly sumPartials: (
    dst: number,
    dstStride: number,
    a: number,
    b: number,
    c: number,
    d: number,
    count: number,
    srcStride: number,
    n: number,
    tokens: number,
    factor: number,
  ) => void
  readonly addRows: (x: number, xStride: number, y: number, yStride: number, n: number, tokens: number) => void
  readonly gatherRowF32: GatherRow
  readonly gatherRowBf16: GatherRow
  readonly cacheRowF32: CacheRowKernel
  readonly cacheRowBf16: CacheRowKernel
  readonly cacheRowInt8: (dst: number, src: number, n: number, padded: number, keys: number, split: number) => void
  readonly transposeHeads: LoadHeads
  readonly quantizeHeads: LoadHeads
  readonly dotF32: Dot
  readonly dotBf16: Dot
  readonly dotInt8: (q: number, c: number, cStride: number, meta: number, groups: number, out: number, headLanes: number, tokens: number) => void
  readonly beginAttention: (state: number, headLanes: number, z: number, zStride: number, heads: number, valueWidth: number) => void
  readonly attendF32: Attend
  readonly attendBf16: Attend
  readonly attendInt8: AttendInt8
  readonly attendFactorsF32: AttendFactors
  readonly attendFactorsBf16: AttendFactors
  readonly finishAttention: (z: number, zStride: number, sum: number, valueWidth: number, heads: number) => void
  readonly combinePartials: (
    dst: number,
    dstStride: number,
    a: number,
    b: number,
    c: number,
    d: number,
    srcStride: number,
    toMax: number,
    toSum: number,
    heads: number,
    width: number,
    tokens: number,
  ) => void
  readonly argmax: (logits: number, n: number) => number
  readonly sumOfExponentials: (logits: number, n: number, max: number) => number
  readonly softWeights: (logits: number, n: number, inverseTemperature: number, weights: number) => number
  readonly sampleCategorical: (logits: number, n: number, inverseTemperature: number, u: number, scratch: number) => number

  readonly nonFinite16: (p: number, n: number, mask: number) => number
  readonly nonFinite32: (p: number, n: number) => number
  readonly nonFiniteScales: (p: number, n: number) => number
  readonly nonFiniteScalesInt4: (p: number, n: number) => number
  readonly nonFiniteBlocks: (p: number, n: number, bytes: number) => number
  readonly firstAbove: (p: number, n: number, limit: number) => number
  readonly widenBf16: Convert
  readonly widenF16: Convert
  readonly widenQ8: Convert
  readonly widenQ4: Convert
  readonly narrowBf16: Convert
  readonly packTiles16: PackTiles
  readonly packTiles32: PackTiles
  readonly packColumns16: PackTiles
  readonly packColumns32: PackTiles
  readonly placeTilesQ4Int4: PlaceTiles
  readonly placeTilesQ4Int8: PlaceTiles
  readonly placeTilesQ8Int8: PlaceTiles
  readonly quantizeTilesInt4: (src: number, rowStep: number, colStep: number, tiles: number, cols: number, dst: number) => void
  readonly quantizeTiles: (src: number, rowStep: number, colStep: number, tiles: number, cols: number, dst: number) => void
}
