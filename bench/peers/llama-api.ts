// As much of node-llama-cpp as the benchmarks use, from a folder that is given.
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

export interface LlamaSequence {
  evaluate(tokens: number[], options: object): AsyncIterable<number>
  clearHistory(): Promise<void>
  /** For each token that asks for it, the probabilities of the next, likeliest first. */
  controlledEvaluate(tokens: (number | [number, object])[]): Promise<({ next: { probabilities?: Map<number, number> } } | undefined)[]>
}

interface LlamaApi {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{ createContext(options: object): Promise<{ getSequence(): LlamaSequence }> }>
  }>
}

/** A context of a model on the CPU. */
export async function openLlama(folder: string, file: string, threads: number, context: object): Promise<{ getSequence(): LlamaSequence }> {
  const { getLlama } = (await import(pathToFileURL(join(resolve(folder), 'node_modules/node-llama-cpp/dist/index.js')).href)) as LlamaApi
  const llama = await getLlama({ gpu: false, maxThreads: threads, logLevel: 'error' })
  const model = await llama.loadModel({ modelPath: resolve(file) })
  return model.createContext({ ...context, batchSize: 512, threads })
}
