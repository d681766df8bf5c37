// Times Tetrad in a process of its own, as llama.ts times its peer; prints one line of JSON.
// Usage: node dist/bench/peers/tetrad.js <model dir> decode|prefill <tokens> <ranks> <weights>
import { Engine } from '../../src/index.js'
import { packedBytes } from '../../src/testing.js'

const [dir = '', kind, count = '64', ranks = '2', weights = 'auto'] = process.argv.slice(2)
const tokens = Number(count)
const WARM_MS = 1000
const engine = await Engine.load(dir, { ranks: Number(ranks) as 1, weights: weights as 'auto', maxRunning: 4 })
const { vocab } = engine.info
const prompt = (length: number, round: number) => Array.from({ length }, (_, i) => (300 + ((i * 37 + round * 11) % 3000)) % vocab)
let tokensPerSecond = 0
// Until the engine has compiled the kernels and the ranks for good: 300 tokens of models/tiny.
for (const start = performance.now(); performance.now() - start < WARM_MS; ) await engine.generate(prompt(16, 9), { maxTokens: 128, ignoreEos: true })
if (kind === 'decode') tokensPerSecond = (await engine.generate(prompt(16, 0), { maxTokens: tokens, ignoreEos: true })).timings.tokensPerSecond
else {
  const rates: number[] = []
  for (let round = 0; round < 4; round++) {
    const { timings } = await engine.generate(prompt(tokens, round), { maxTokens: 1, ignoreEos: true })
    rates.push((tokens / timings.ttftMs) * 1000)
  }
  tokensPerSecond = rates.sort((a, b) => a - b).at(-2) as number
}
console.log(JSON.stringify({ tokensPerSecond, bytes: packedBytes(engine).shards.reduce((a, b) => a + b, 0) }))
await engine.close()
