// llama.cpp (node-llama-cpp, from a folder that is given) behind a minimal fastify server, as somebody would write it: a sequence for each
// request up to a number, others wait. Prints its port. Usage: node dist/bench/peers/llama-server.js <folder> <file.gguf> <sequences> <threads>
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import fastify from 'fastify'

interface LlamaSequence {
  evaluate(tokens: number[], options: object): AsyncIterable<number>
  clearHistory(): Promise<void>
}
interface LlamaApi {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{ createContext(options: object): Promise<{ getSequence(): LlamaSequence }> }>
  }>
}

const [folder = '.', file = '', count = '8', threads = '2'] = process.argv.slice(2)
const { getLlama } = (await import(pathToFileURL(join(resolve(folder), 'node_modules/node-llama-cpp/dist/index.js')).href)) as LlamaApi
const llama = await getLlama({ gpu: false, maxThreads: Number(threads), logLevel: 'error' })
const model = await llama.loadModel({ modelPath: resolve(file) })
const context = await model.createContext({ contextSize: 256, sequences: Number(count), batchSize: 512, threads: Number(threads) })
const free = Array.from({ length: Number(count) }, () => context.getSequence())
const waiting: ((sequence: LlamaSequence) => void)[] = []

const app = fastify()
app.post<{ Body: { prompt: number[]; max_tokens: number } }>('/v1/completions', async ({ body }) => {
  const sequence = free.pop() ?? (await new Promise<LlamaSequence>((take) => waiting.push(take)))
  try {
    await sequence.clearHistory()
    const tokens: number[] = []
    for await (const token of sequence.evaluate(body.prompt, { temperature: 0 })) {
      tokens.push(token)
      if (tokens.length === body.max_tokens) break
    }
    return { choices: [{ index: 0, tokens }], usage: { completion_tokens: tokens.length } }
  } finally {
    const next = waiting.shift()
    if (next) next(sequence)
    else free.push(sequence)
  }
})
console.log(JSON.stringify({ port: Number(new URL(await app.listen({ port: 0, host: '127.0.0.1' })).port) }))
