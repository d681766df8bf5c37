// The WebAssembly kernels: one module without statics, instantiated over a shard's, a rank's or the exchange memory.
// Every pointer is a byte offset into the one memory of the instance; every stride is in bytes.
// The order of every sum is part of the interface: test/kernels/wasm-oracle.test.ts repeats it with Math.fround.
export { fusesMultiplyAdd } from './madd'
export { matmulInt4, matmulInt4Dot, strip1Int4, strip1Int4Dot, strip2Int4, strip2Int4Dot, strip3Int4, strip3Int4Dot, strip4Int4, strip4Int4Dot } from './int4'
export {
  addsDots, matmulInt8, matmulInt8Dot, strip1Int8, strip1Int8Dot, strip2Int8, strip2Int8Dot, strip3Int8, strip3Int8Dot, strip4Int8, strip4Int8Dot,
} from './int8'
export {
  narrowBf16, nonFinite16, nonFinite32, nonFiniteScales, packColumns16, packColumns32, packTiles16, packTiles32, quantizeTiles, widenBf16, widenF16,
} from './packing'
export { firstAbove, nonFiniteBlocks, placeTilesQ4Int4, placeTilesQ4Int8, placeTilesQ8Int8, widenQ4, widenQ8 } from './packing-ggml'
export { nonFiniteScalesInt4, quantizeTilesInt4 } from './packing-int4'
export {
  matmulBf16, matmulF32, strip2Bf16, strip2F32, strip3Bf16, strip3F32, strip4Bf16, strip4F32, strip5Bf16, strip5F32, strip6Bf16, strip6F32,
} from './matmul'
export { attendBf16, attendF32, attendFactorsBf16, attendFactorsF32, beginAttention, dotBf16, dotF32, finishAttention, transposeHeads } from './attention'
export { attendInt8, cacheRowInt8, dotInt8, quantizeHeads } from './attention-int8'
export { addRows, cacheRowBf16, cacheRowF32, combineFactors, gateRows, gatherRowBf16, gatherRowF32, rmsNorm, rope, swiglu, sumPartials } from './elementwise'
export { combinePartials } from './partials'
export { argmax, sampleCategorical, softWeights, sumOfExponentials } from './sampling'
