// Logits of a GGUF file beside llama.cpp's (node-llama-cpp, from a folder that is given): the largest difference of log-probabilities after a
// prompt, and whether the likeliest token is the same.
// Usage: node dist/bench/diagnostics/gguf-reference.js <folder> <file.gguf>
import { Engine } from '../../src/index.js'
import { openLlama } from '../peers/llama-api.js'

const [folder = '.', file = ''] = process.argv.slice(2)
/** All tokens, none left out. */
const EVERY = { temperature: 1, minP: 0, topK: 0, topP: 1 }

const first = await Engine.load(file, { backend: 'wasm', ranks: 1, maxRunning: 1, cacheTokens: 64 })
const { vocab } = first.info
await first.close()
const prompt = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % vocab)
const context = await openLlama(folder, file, 1, { contextSize: 64 })
const evaluated = await context
  .getSequence()
  .controlledEvaluate(prompt.map((token, i) => (i < prompt.length - 1 ? token : [token, { generateNext: { probabilities: true, options: EVERY } }])))
const probabilities = evaluated.at(-1)?.next.probabilities ?? new Map<number, number>()
const likeliest = [...probabilities.keys()][0]
for (const weights of ['f32', 'bf16', 'int8'] as const) {
  const engine = await Engine.load(file, { backend: 'wasm', ranks: 1, weights, maxRunning: 1, cacheTokens: 64 })
  const logits = (await engine.logits(prompt)).slice(-vocab)
  await engine.close()
  const most = logits.reduce((a, b) => Math.max(a, b))
  const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0)) + most
  let largest = 0
  for (const [id, p] of probabilities) if (p > 0) largest = Math.max(largest, Math.abs(Math.log(p) - ((logits[id] as number) - total)))
  const same = likeliest === logits.indexOf(most) ? 'the same' : 'another'
  console.log(`weights ${weights}: ${probabilities.size} tokens, largest difference ${largest.toExponential(2)}, ${same} likeliest token`)
}
process.exit(0)
