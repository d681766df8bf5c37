// Several adapters in one batch beside requests without: everyone's bits are those of being alone, at any rank count, chunk and after a fault.
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Engine } from '../../src/index.js'
import { injectFault, recordLogits } from '../../src/testing.js'
import { writeAdapter } from '../support/adapters.js'
import { FIXTURES } from '../support/fixtures.js'
import { readTensors, temporary } from '../support/models.js'
import { full, quickIf } from '../support/tier.js'

const CASES = ['golden/mlra_4', 'golden/mlra_2_gated', 'golden/tpa', 'golden-hf/qwen3', 'golden-hf/deepseek_v3_dense']
const QUICK = ['golden/mlra_4', 'golden-hf/qwen3']

/** The model's directory, and directories of adapters a (rank 3, all layers), b (rank 8, some layers) and c (rank 5, the MLP). */
async function prepare(t: ExecutionContext, name: string) {
  const base = `${FIXTURES}${name}`
  const dir = temporary(t)
  const tensors = await readTensors(base)
  const [a, b, c] = [join(dir, 'a'), join(dir, 'b'), join(dir, 'c')] as const
  writeAdapter(a, tensors, { seed: 1, rank: 3 })
  writeAdapter(b, tensors, { seed: 2, rank: 8, modules: ['q_proj', 'v_proj', 'q_b_proj', 'kv_a_proj_with_mqa', 'W_A_k', 'c_proj', 'o_proj'] })
  writeAdapter(c, tensors, { seed: 3, rank: 5, modules: ['c_fc1', 'gate_proj', 'down_proj', 'c_proj'] })
  return { base, adapters: { a, b, c } }
}

const ADAPTERS = [undefined, 'a', 'b', undefined, 'a', 'c', 'b', undefined] as const
/** The same text in several of them: the prefix cache must tell them apart. */
const prompt = (i: number) => Array.from({ length: i % 2 === 0 ? 75 : 9 + i }, (_, k) => (k * 7 + 3 + (i % 2)) % 150)
const paramsOf = (i: number) => {
  const lora = ADAPTERS[i]
  return { maxTokens: 8, temperature: 0.8, seed: 100 + i, ignoreEos: true, ...(lora && { lora }) }
}

/** Hashes of all rows of logits, by request and position. */
async function record(engine: Engine, run: () => Promise<unknown>): Promise<Map<string, string>> {
  const { rows, stop } = recordLogits(engine)
  await run()
  stop()
  return new Map(rows.map(({ seed, position, hash }) => [`${seed} ${position}`, hash] as const))
}

const together = (engine: Engine) => Promise.all(ADAPTERS.map((_, i) => engine.generate(prompt(i), paramsOf(i))))
const oneByOne = async (engine: Engine) => {
  for (const i of ADAPTERS.keys()) await engine.generate(prompt(i), paramsOf(i))
}

for (const name of CASES) {
  quickIf(QUICK.includes(name))(
    `${name}: every request has the bits of being alone, whatever adapters the others have, at 1, 2 and 4 ranks`,
    async (t) => {
      const { base, adapters } = await prepare(t, name)
      const plain = await Engine.load(base, { backend: 'wasm', ranks: 1 })
      const without = await record(plain, async () => {
        for (const [i, lora] of ADAPTERS.entries()) if (!lora) await plain.generate(prompt(i), paramsOf(i))
      })
      await plain.close()
      let first: Map<string, string> | undefined
      const cuts = [
        { ranks: 1, prefillChunk: 64 },
        { ranks: 2, prefillChunk: 7 },
        { ranks: 4, prefillChunk: 33 },
      ] as const
      for (const options of cuts) {
        const engine = await Engine.load(base, { backend: 'wasm', ...options, adapters })
        const inBatch = await record(engine, () => together(engine))
        first ??= await record(engine, () => oneByOne(engine))
        await engine.close()
        t.deepEqual(new Map([...inBatch].sort()), new Map([...first].sort()), `${options.ranks} ranks`)
      }
      for (const [row, hash] of without) t.is(first?.get(row), hash, `a request without an adapter, row ${row}`)
      // Requests 0, 2 and 4 have the same prompt.
      t.is(new Set([0, 2, 4].map((i) => first?.get(`${100 + i} 74`))).size, 3, 'each adapter has logits of its own')
    },
  )
}

full('the other weight and cache formats, and the portable kernels, keep the bits too', async (t) => {
  const { base, adapters } = await prepare(t, 'golden/mlra_4')
  for (const options of [
    { weights: 'int8', cache: 'bf16' },
    { weights: 'bf16', simd: 'simd128' },
  ] as const) {
    let first: Map<string, string> | undefined
    for (const ranks of [1, 4] as const) {
      const engine = await Engine.load(base, { backend: 'wasm', ranks, ...options, adapters })
      const rows = await record(engine, () => together(engine))
      await engine.close()
      first ??= rows
      t.deepEqual(new Map([...rows].sort()), new Map([...first].sort()))
    }
  }
})

test('a rank that dies has its adapters again: no request changes', async (t) => {
  const { base, adapters } = await prepare(t, 'golden/mlra_4')
  const engine = await Engine.load(base, { backend: 'wasm', ranks: 2, adapters })
  t.teardown(() => engine.close())
  const expected = (await together(engine)).map(({ tokens }) => tokens)
  for (const kind of ['exit', 'throw'] as const) {
    const running = together(engine)
    injectFault(engine, { rank: 1, kind, stage: 'all-reduce of the MLP' })
    t.deepEqual(
      (await running).map(({ tokens }) => tokens),
      expected,
    )
  }
  t.is(engine.stats().restarts, 2)
})

test('cached prefixes are those of one adapter: of another, or of one loaded later under the same name, they are not', async (t) => {
  const { base, adapters } = await prepare(t, 'golden/mlra_4')
  const engine = await Engine.load(base, { backend: 'wasm', ranks: 1, adapters })
  t.teardown(() => engine.close())
  const ids = Array.from({ length: 100 }, (_, i) => (i * 11) % 150)
  const cached = async (lora?: string) => (await engine.generate(ids, { maxTokens: 1, ...(lora && { lora }) })).usage.cachedTokens
  t.is(await cached('a'), 0)
  t.is(await cached(), 0)
  t.is(await cached('b'), 0)
  t.is(await cached('a'), 99)
  t.is(await cached(), 99)
  await engine.unloadAdapter('a')
  await engine.loadAdapter('a', adapters.b)
  t.is(await cached('a'), 0)
  t.deepEqual(await engine.logits(ids, { lora: 'a' }), await engine.logits(ids, { lora: 'b' }))
})
