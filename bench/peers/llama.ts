// Times llama.cpp (node-llama-cpp, from a folder that is given) in a process of its own; prints one line of JSON.
// Usage: node dist/bench/peers/llama.js <folder> <file.gguf> decode|prefill <tokens> <threads>
import { openLlama } from './llama-api.js'

const [folder = '.', file = '', kind, count = '64', threads = '1'] = process.argv.slice(2)
const tokens = Number(count)
const context = await openLlama(folder, file, Number(threads), { contextSize: 1100 })
const sequence = context.getSequence()
const prompt = (length: number, round: number) => Array.from({ length }, (_, i) => 300 + ((i * 37 + round) % 3000))

let tokensPerSecond = 0
if (kind === 'decode') {
  let n = 0
  let start = 0
  for await (const _ of sequence.evaluate(prompt(16, 0), { temperature: 0 })) {
    if (n === 8) start = performance.now()
    if (n++ === tokens + 8) break
  }
  tokensPerSecond = (tokens / (performance.now() - start)) * 1000
} else {
  const rates: number[] = []
  for (let round = 0; round < 4; round++) {
    await sequence.clearHistory()
    const start = performance.now()
    for await (const _ of sequence.evaluate(prompt(tokens, round), { temperature: 0 })) break
    rates.push((tokens / (performance.now() - start)) * 1000)
  }
  tokensPerSecond = rates.sort((a, b) => a - b).at(-2) as number
}
console.log(JSON.stringify({ tokensPerSecond }))
process.exit(0)
