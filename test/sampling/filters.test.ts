import test from 'ava'
import { TokenFilters } from '../../workers/sampling/filters.js'
import { randomNumbers } from '../support/fixtures.js'
import { probabilities } from '../support/plain-sampling.js'

function weightsOf(logits: readonly number[], temperature: number): Float64Array {
  const max = Math.max(...logits)
  return Float64Array.from(logits, (l) => Math.exp((l - max) / temperature))
}

test('topK, topP, minP and typicalP keep what a plain implementation keeps, alone and in order one after another', (t) => {
  const random = randomNumbers(5)
  for (let round = 0; round < 300; round++) {
    const n = [7, 64, 1000][round % 3] as number
    // Sharp and flat distributions.
    const logits = Array.from({ length: n }, () => (random() - 0.5) * ([1, 10, 60][Math.floor(round / 3) % 3] as number))
    const pick = <T>(off: T, on: () => T) => (random() < 0.5 ? off : on())
    const params = {
      temperature: 0.3 + 2 * random(),
      topK: pick(n, () => 1 + Math.floor(random() * n)),
      topP: pick(1, () => 0.05 + 0.94 * random()),
      minP: pick(0, () => random() ** 4),
      typicalP: pick(1, () => 0.05 + 0.94 * random()),
    }
    const weights = weightsOf(logits, params.temperature)
    const filters = new TokenFilters(n)
    filters.keepMostLikely(weights, params.topK, params.topP, params.minP)
    filters.keepTypical(weights, Float64Array.from(logits), params.temperature, params.typicalP)
    const expected = probabilities(logits, params)
    const kept = [...weights].map((w, i) => [w > 0, (expected[i] as number) > 0])
    // Weights that underflow in the plain one are 0 there too.
    const different = kept.filter(([a, b]) => a !== b).length
    t.is(different, 0, JSON.stringify({ round, ...params, different }))
  }
})

test('ties go to the lowest ids: exactly k are kept', (t) => {
  const weights = new Float64Array(100).fill(1)
  const filters = new TokenFilters(100)
  filters.keepMostLikely(weights, 7, 1, 0)
  t.deepEqual([...weights], [...new Array(7).fill(1), ...new Array(93).fill(0)])
  filters.keepMostLikely(weights, 0, 0.5, 0)
  t.deepEqual([...weights], [...new Array(4).fill(1), ...new Array(96).fill(0)])
})

test('the most likely token always stays', (t) => {
  const weights = Float64Array.of(0.1, 1, 0.5)
  new TokenFilters(3).keepMostLikely(weights, 1, 1e-9, 1)
  t.deepEqual([...weights], [0, 1, 0])
})
