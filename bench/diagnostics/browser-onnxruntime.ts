// Greedy decoding of write-onnx.ts's graph by onnxruntime-web, with a cache. The function runs in a page: it may use nothing outside itself.

export interface OrtDecode {
  readonly threads: number
  readonly prompt: readonly number[]
  /** Tokens to generate. */
  readonly count: number
  readonly layers: number
  /** Values of a token that a layer caches: latents, and the shared rotary key. */
  readonly latents: number
  readonly rope: number
}

interface OrtTensor {
  readonly data: Float32Array
}
interface Session {
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>
}
interface Ort {
  readonly env: { readonly wasm: { wasmPaths: string; numThreads: number } }
  readonly InferenceSession: { create(url: string, options: object): Promise<Session> }
  readonly Tensor: new (type: string, data: BigInt64Array | Float32Array, dims: number[]) => OrtTensor
}

/**
 * The tokens, and their number over the time from the prompt's last token on. Cached rows lie in arrays that are made once; a step hands
 * views of them to the runtime, which copies its inputs.
 */
export async function ortDecode(options: OrtDecode): Promise<{ tokens: number[]; tokensPerSecond: number }> {
  const { threads, prompt, count, layers, latents, rope } = options
  const module = '/peer/ort.wasm.min.mjs'
  const ort = (await import(module)) as Ort
  const page = globalThis as typeof globalThis & { ortSession?: Promise<Session> }
  ort.env.wasm.wasmPaths = '/peer/'
  ort.env.wasm.numThreads = threads
  page.ortSession ??= ort.InferenceSession.create('/peer/tiny.onnx', { executionProviders: ['wasm'], graphOptimizationLevel: 'all' })
  const session = await page.ortSession
  const capacity = prompt.length + count
  const caches = Array.from({ length: layers }, () => ({ c: new Float32Array(capacity * latents), k: new Float32Array(capacity * rope) }))
  const step = async (id: number, position: number): Promise<number> => {
    const angles = Float64Array.from({ length: rope / 2 }, (_, i) => position * 10000 ** ((-2 * i) / rope))
    const feeds: Record<string, OrtTensor> = {
      id: new ort.Tensor('int64', BigInt64Array.of(BigInt(id)), [1]),
      cos: new ort.Tensor('float32', Float32Array.from(angles, Math.cos), [rope / 2]),
      sin: new ort.Tensor('float32', Float32Array.from(angles, Math.sin), [rope / 2]),
    }
    caches.forEach(({ c, k }, i) => {
      feeds[`c${i}`] = new ort.Tensor('float32', c.subarray(0, position * latents), [position, latents])
      feeds[`k${i}`] = new ort.Tensor('float32', k.subarray(0, position * rope), [position, rope])
    })
    const results = await session.run(feeds)
    caches.forEach(({ c, k }, i) => {
      c.set((results[`nc${i}`] as OrtTensor).data, position * latents)
      k.set((results[`nk${i}`] as OrtTensor).data, position * rope)
    })
    const { data } = results.logits as OrtTensor
    let best = 0
    for (let i = 1; i < data.length; i++) if ((data[i] as number) > (data[best] as number)) best = i
    return best
  }
  for (const [position, id] of prompt.slice(0, -1).entries()) await step(id, position)
  const start = performance.now()
  const tokens: number[] = []
  let next = prompt.at(-1) as number
  for (let position = prompt.length - 1; tokens.length < count; position++) {
    next = await step(next, position)
    tokens.push(next)
  }
  return { tokens, tokensPerSecond: count / ((performance.now() - start) / 1000) }
}
