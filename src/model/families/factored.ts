// tpa: queries, keys and values are sums of vectors that all heads share, with coefficients per head and token.
// Source: the authors' model/tpa.py.
import type { ModelConfig } from '../model-config.js'
import { type AttentionContext, matrix, type PresetSize, part, type ShapeOf, type TensorSpec, type Variant, whole } from './family.js'
import { cutsOf, eachShard, headDimOf, need, unit } from './geometry.js'
import { GPT } from './gpt.js'

const QUERY_COEFFICIENTS = 'c_qkv.W_A_q.weight'

export const TPA: Variant = {
  name: 'tpa',
  decoder: GPT,
  isPlain: true,
  matches: (_config: ModelConfig, shapeOf: ShapeOf) => shapeOf(QUERY_COEFFICIENTS) !== undefined,
  lower(config: ModelConfig) {
    const width = headDimOf(config, 2)
    const [rank, queryRank] = [need(config, 'factorRank'), need(config, 'factorQueryRank')]
    const { heads, normEps } = config
    const headCuts = cutsOf(heads)
    return {
      attention: {
        heads,
        nopeDim: 0,
        ropeDim: width,
        valueDim: width,
        queryRank: queryRank * width,
        queryNormed: false,
        headNormed: false,
        biased: false,
        streams: 1,
        stream: { width: 2 * rank * width, keyWidth: width, valueOffset: rank * width, valueWidth: width, normWidth: 0, ropeVectors: rank },
        absorbed: false,
        sharedRopeDim: 0,
        factors: { queryRank, rank },
        gated: false,
        units: eachShard((s) => {
          const [start = 0, end = 0] = headCuts.slice(s, s + 2)
          return unit(0, start, end)
        }),
        headCuts,
        // The means over q_rank and rank are taken here and, for values, once at the output.
        scale: width ** -0.5 / (queryRank * rank),
        outputFactor: 1 / rank,
        normEps,
      },
    }
  },
  tensors({ attention: a, embed }: AttentionContext): TensorSpec[] {
    const { rank, queryRank } = a.factors ?? { rank: 0, queryRank: 0 }
    const shared = rank * a.valueDim
    // [heads, rank] in the file.
    const coefficients = (of: 'key' | 'value') =>
      Array.from({ length: a.heads * rank }, (_, row) =>
        part({ row, rows: 1, col: 0, cols: embed }, { name: 'coefficients', of, factor: row % rank }, Math.floor(row / rank)),
      )
    const vectors = (offset: number) => [part({ row: 0, rows: shared, col: 0, cols: embed }, { name: 'stream', stream: 0 } as const, offset)]
    return [
      whole(QUERY_COEFFICIENTS, [a.heads * queryRank, embed], { name: 'queryB' }),
      matrix('c_qkv.W_A_k.weight', [a.heads * rank, embed], coefficients('key')),
      matrix('c_qkv.W_A_v.weight', [a.heads * rank, embed], coefficients('value')),
      whole('c_qkv.W_B_q.weight', [a.queryRank, embed], { name: 'queryA' }),
      matrix('c_qkv.W_B_k.weight', [shared, embed], vectors(0)),
      matrix('c_qkv.W_B_v.weight', [shared, embed], vectors(a.stream.valueOffset)),
    ]
  },
  presetFields: ({ headDim }: PresetSize) => ({ head_dim: headDim, rank: 2, q_rank: 6 }),
}
