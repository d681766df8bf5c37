// Times llama.cpp (node-llama-cpp, from a folder that is given) in a process of its own; prints one line of JSON.
// Usage: node dist/bench/peers/llama.js <folder> <file.gguf> decode|prefill <tokens> <threads>
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

interface LlamaSequence {
  evaluate(tokens: number[], options: object): AsyncIterable<number>
  clearHistory(): Promise<void>
}
interface LlamaApi {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{ createContext(options: object): Promise<{ getSequence(): LlamaSequence }> }>
  }>
}

const [folder = '.', file = '', kind, count = '64', threads = '1'] = process.argv.slice(2)
const tokens = Number(count)
const { getLlama } = (await import(pathToFileURL(join(resolve(folder), 'node_modules/node-llama-cpp/dist/index.js')).href)) as LlamaApi
const llama = await getLlama({ gpu: false, maxThreads: Number(threads), logLevel: 'error' })
const model = await llama.loadModel({ modelPath: resolve(file) })
const context = await model.createContext({ contextSize: 1100, batchSize: 512, threads: Number(threads) })
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
