// llama.cpp (node-llama-cpp, from a folder that is given) behind a minimal fastify server, as somebody would write it: a sequence for each
// request up to a number, others wait. Prints its port. Usage: node dist/bench/peers/llama-server.js <folder> <file.gguf> <sequences> <threads>

import fastify from 'fastify'
import { type LlamaSequence, openLlama } from './llama-api.js'

const [folder = '.', file = '', count = '8', threads = '2'] = process.argv.slice(2)
const context = await openLlama(folder, file, Number(threads), { contextSize: 256, sequences: Number(count) })
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
