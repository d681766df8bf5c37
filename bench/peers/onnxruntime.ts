// Times one-token decode steps of an MLRA-4 graph (write-onnx.ts) in onnxruntime-node, from a folder that is given, in a process of its own;
// prints one line of JSON: tokens/s, and the logits after token 5 alone, which its caller compares.
// Usage: node dist/bench/peers/onnxruntime.js <folder> <model.onnx> <layers> <latents> <rope> <cached tokens> <threads>
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'

interface OrtTensor {
  readonly data: Float32Array
}
interface Session {
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>
}
interface Ort {
  InferenceSession: { create(file: string, options: object): Promise<Session> }
  Tensor: new (type: string, data: BigInt64Array | Float32Array, dims: number[]) => OrtTensor
}

const [folder = '.', file = '', ...numbers] = process.argv.slice(2)
const [layers = 0, latents = 0, rope = 0, cached = 0, threads = 1] = numbers.map(Number)
const repeats = 60
const ort = createRequire(join(resolve(folder), 'index.js'))('onnxruntime-node') as Ort
const session = await ort.InferenceSession.create(resolve(file), {
  intraOpNumThreads: threads,
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
})
const random = (n: number) => Float32Array.from({ length: n }, (_, i) => ((Math.imul(i + 1, 2654435761) >>> 8) & 0xffff) / 65536 - 0.5)
const feeds = (S: number): Record<string, OrtTensor> => ({
  id: new ort.Tensor('int64', BigInt64Array.of(5n), [1]),
  cos: new ort.Tensor('float32', new Float32Array(rope / 2).fill(1), [rope / 2]),
  sin: new ort.Tensor('float32', new Float32Array(rope / 2), [rope / 2]),
  ...Object.fromEntries(
    Array.from({ length: layers }, (_, i) => [
      [`c${i}`, new ort.Tensor('float32', random(S * latents), [S, latents])],
      [`k${i}`, new ort.Tensor('float32', random(S * rope), [S, rope])],
    ]).flat(),
  ),
})
const { logits } = await session.run(feeds(0))
const long = feeds(cached)
for (let i = 0; i < 10; i++) await session.run(long)
const times: number[] = []
for (let i = 0; i < repeats; i++) {
  const start = performance.now()
  await session.run(long)
  times.push(performance.now() - start)
}
times.sort((a, b) => a - b)
console.log(JSON.stringify({ tokensPerSecond: 1000 / (times[repeats >> 1] as number), logits: Array.from(logits?.data ?? []) }))
