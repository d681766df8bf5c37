// How much the WebAssembly attention kernels do for a cached token, as ranks share it: fewer heads at once make a tile that reuses less.
import { rankUnits, shardsOf } from '../../workers/layout/attention-plan.js'
import type { AttentionShape, RankCount } from '../../workers/protocol.js'

/** Instructions in kernels/wasm/assembly/attention.ts, loop counters included, of a bf16 cache: scores of a column of 4 tokens for 8 and for 4 heads, */
const SCORES_8 = 25 / 4
const SCORES_4 = 20 / 4
/** the weighted sum of a column for 4 heads, and for one head of fewer, */
const SUM_4 = 19 / 8
const SUM_1 = 7 / 4
/** and the probabilities of 4 heads. */
const SOFTMAX_4 = 45

/** Instructions of all ranks together for one cached token and layer; factored attention counts as one vector. */
export function attentionInstructions(a: AttentionShape, ranks: RankCount): number {
  let sum = 0
  for (let rank = 0; rank < ranks; rank++) {
    const units = rankUnits(a, shardsOf(rank, ranks))
    for (const { headStart, headEnd } of units) {
      const heads = headEnd - headStart
      sum += scores(heads) * a.stream.keyWidth + Math.ceil(heads / 4) * SOFTMAX_4
      sum += (Math.floor(heads / 4) * SUM_4 + (heads % 4) * SUM_1) * a.stream.valueWidth
    }
    const starts = units.map((unit) => unit.headStart)
    if (units.length > 0) sum += scores(Math.max(...units.map((unit) => unit.headEnd)) - Math.min(...starts)) * a.sharedRopeDim
  }
  return sum
}

/** Of one column and token. */
function scores(heads: number): number {
  const vectors = Math.ceil(heads / 4)
  return Math.floor(vectors / 2) * SCORES_8 + (vectors % 2) * SCORES_4
}
