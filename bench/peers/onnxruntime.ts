// Times one-token decode steps of an MLRA-4 graph in onnxruntime-node (from a folder that is given), in a process of its own; prints one
// line of JSON. Inputs of the graph: id, cos, sin, and for each layer the cached latents c<i> [S, 4 * latent] and rope keys k<i> [S, rope].
// Usage: node dist/bench/peers/onnxruntime.js <folder> <model.onnx> <cached tokens> <threads>
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'

interface Session {
  run(feeds: Record<string, unknown>): Promise<unknown>
}
interface Ort {
  InferenceSession: { create(file: string, options: object): Promise<Session> }
  Tensor: new (type: string, data: BigInt64Array | Float32Array, dims: number[]) => unknown
}

const [folder = '.', file = '', cached = '512', threads = '1'] = process.argv.slice(2)
const S = Number(cached)
const [layers, latents, rope, repeats] = [8, 256, 32, 60]
const ort = createRequire(join(resolve(folder), 'index.js'))('onnxruntime-node') as Ort
const session = await ort.InferenceSession.create(resolve(file), {
  intraOpNumThreads: Number(threads),
  interOpNumThreads: 1,
  executionMode: 'sequential',
})
const random = (n: number) => Float32Array.from({ length: n }, (_, i) => ((Math.imul(i + 1, 2654435761) >>> 8) & 0xffff) / 65536 - 0.5)
const feeds: Record<string, unknown> = {
  id: new ort.Tensor('int64', BigInt64Array.of(5n), [1]),
  cos: new ort.Tensor('float32', new Float32Array(rope / 2).fill(1), [rope / 2]),
  sin: new ort.Tensor('float32', new Float32Array(rope / 2), [rope / 2]),
}
for (let i = 0; i < layers; i++) {
  feeds[`c${i}`] = new ort.Tensor('float32', random(S * latents), [S, latents])
  feeds[`k${i}`] = new ort.Tensor('float32', random(S * rope), [S, rope])
}
for (let i = 0; i < 10; i++) await session.run(feeds)
const times: number[] = []
for (let i = 0; i < repeats; i++) {
  const start = performance.now()
  await session.run(feeds)
  times.push(performance.now() - start)
}
times.sort((a, b) => a - b)
console.log(JSON.stringify({ tokensPerSecond: 1000 / (times[repeats >> 1] as number) }))
