// Sampling as the documentation says it, in plain float64 and with Math.exp: what the ranks' sampler is compared with.
import type { GenerateParams } from '../../src/index.js'

/** Logits after bias, penalties and barring. tokens: prompt and output so far. */
export function adjust(
  logits: ArrayLike<number>,
  params: GenerateParams,
  tokens: readonly number[],
  promptLength: number,
  ends: readonly number[],
): number[] {
  const out = Array.from(logits)
  const add = (id: number, value: number) => {
    out[id] = (out[id] as number) + value
  }
  for (const [id, bias] of Object.entries(params.logitBias ?? {})) add(Number(id), bias)
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, minTokens = 0 } = params
  for (const id of new Set(tokens)) {
    const value = out[id] as number
    out[id] = value > 0 ? value / repetitionPenalty : value * repetitionPenalty
  }
  const output = tokens.slice(promptLength)
  for (const id of new Set(output)) add(id, -presencePenalty - frequencyPenalty * output.filter((o) => o === id).length)
  if (output.length < minTokens) for (const id of ends) out[id] = Number.NEGATIVE_INFINITY
  return out
}

/** Probabilities after temperature and filters; 0 for what can't be sampled. */
export function probabilities(logits: readonly number[], params: GenerateParams): number[] {
  const { temperature = 1, topK = logits.length, topP = 1, minP = 0, typicalP = 1 } = params
  const max = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  let p = normalized(logits.map((l) => Math.exp((l - max) / temperature)))
  const ids = (by: (id: number) => number) => p.flatMap((v, id) => (v > 0 ? [id] : [])).sort((a, b) => by(a) - by(b) || a - b)
  const keep = (order: readonly number[], most: number, share: number) => {
    const kept = new Set<number>()
    let sum = 0
    for (const id of order.slice(0, most)) {
      kept.add(id)
      sum += p[id] as number
      if (sum >= share) break
    }
    p = normalized(p.map((v, id) => (kept.has(id) ? v : 0)))
  }
  keep(
    ids((id) => -(p[id] as number)),
    topK,
    Number.POSITIVE_INFINITY,
  )
  if (topP < 1)
    keep(
      ids((id) => -(p[id] as number)),
      logits.length,
      topP,
    )
  const most = p.reduce((a, b) => Math.max(a, b), 0)
  p = normalized(p.map((v) => (v >= minP * most ? v : 0)))
  if (typicalP < 1) {
    const entropy = p.reduce((sum, v) => sum - (v > 0 ? v * Math.log(v) : 0), 0)
    keep(
      ids((id) => Math.abs(-Math.log(p[id] as number) - entropy)),
      logits.length,
      typicalP,
    )
  }
  return p
}

function normalized(values: readonly number[]): number[] {
  const sum = values.reduce((a, b) => a + b, 0)
  return values.map((v) => v / sum)
}

export function argmax(values: readonly number[]): number {
  return values.reduce((best, v, i) => (v > (values[best] as number) ? i : best), 0)
}
