import { join } from 'node:path'
import { Engine, type EngineOptions, inspect, MemoryError, OptionError, RankError } from '../../src/index.js'
import { dispatches, injectFault, recordLogits } from '../../src/testing.js'
import { FIXTURES } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { gpuTest, SOFTWARE } from '../support/software-gpu.js'

const MODEL = `${FIXTURES}golden/mlra_4`
const PROMPT = Array.from({ length: 70 }, (_, i) => (i * 37 + 11) % 160)

/** Bits of the logits of the prompt's positions and of 6 tokens decoded after it. */
async function bits(options: EngineOptions) {
  const engine = await Engine.load(MODEL, { ...SOFTWARE, maxRunning: 4, ...options })
  const logits = await engine.logits(PROMPT)
  const recorder = recordLogits(engine)
  const { tokens } = await engine.generate(PROMPT, { maxTokens: 6, ignoreEos: true })
  recorder.stop()
  await engine.close()
  return { logits: Buffer.from(logits.buffer), tokens: [...tokens], hashes: recorder.rows.map((row) => `${row.position} ${row.hash}`) }
}

gpuTest('ranks, chunks of the prompt, and a second run do not change a bit', async (t) => {
  for (const format of [{}, { cache: 'f16', weights: 'bf16' }, { cache: 'bf16', weights: 'int8' }] as const) {
    const expected = await bits({ ranks: 1, ...format })
    // Chunks of the prompt in one format: how they are cut does not depend on it.
    const others = Object.keys(format).length === 0 ? ([{ ranks: 1, prefillChunk: 7 }] as const) : []
    for (const options of [...others, { ranks: 2, prefillChunk: 33 } as const]) {
      const actual = await bits({ ...options, ...format })
      t.true(actual.logits.equals(expected.logits), JSON.stringify({ ...options, ...format }))
      t.deepEqual(actual, expected)
    }
  }
})

gpuTest('int8 and int4 weights give the logits of the float64 reference', async (t) => {
  for (const weights of ['int8', 'int4'] as const) {
    const of = async (options: EngineOptions) => {
      const engine = await Engine.load(MODEL, { ...options, weights, ranks: 1 })
      const logits = await engine.logits(PROMPT.slice(0, 7))
      await engine.close()
      return logits
    }
    const expected = await of({ backend: 'reference' })
    const actual = await of(SOFTWARE)
    t.true(
      expected.every((v, i) => Math.abs(v - (actual[i] as number)) < 1e-4),
      weights,
    )
  }
})

gpuTest('requests that run together have the bits of each alone', async (t) => {
  const engine = await Engine.load(MODEL, { ...SOFTWARE, ranks: 1, maxRunning: 8 })
  const prompts = [PROMPT.slice(0, 5), PROMPT.slice(3, 60), PROMPT.slice(0, 70), [7]]
  const recorder = recordLogits(engine)
  const hashes = (from: number) => recorder.rows.slice(from).map(({ seed, position, hash }) => `${seed} ${position} ${hash}`)
  const alone: string[] = []
  for (const [i, prompt] of prompts.entries()) {
    const from = recorder.rows.length
    await engine.generate(prompt, { maxTokens: 10, ignoreEos: true, seed: i })
    alone.push(...hashes(from))
  }
  const from = recorder.rows.length
  await Promise.all(prompts.map((prompt, i) => engine.generate(prompt, { maxTokens: 10, ignoreEos: true, seed: i })))
  t.deepEqual(hashes(from).sort(), alone.sort())
  await engine.close()
})

gpuTest('a rank that throws, exits, hangs or loses its device: the request goes on with the same tokens on new devices', async (t) => {
  // With the kernels that a software GPU compiles fast: each fault takes new devices.
  const engine = await Engine.load(MODEL, { ...SOFTWARE, gpuKernels: 'gpu.js', ranks: 2, maxRunning: 4, stepDeadlineMs: 15_000 })
  const expected = await engine.generate(PROMPT, { maxTokens: 12, ignoreEos: true })
  for (const kind of ['throw', 'exit', 'device-lost', 'hang'] as const) {
    injectFault(engine, { rank: 1, kind, stage: 'all-reduce of the MLP' })
    const { tokens } = await engine.generate(PROMPT, { maxTokens: 12, ignoreEos: true })
    t.deepEqual([...tokens], [...expected.tokens], kind)
  }
  t.is(engine.stats().restarts, 4)
  await engine.close()
})

gpuTest('a command that the device refuses fails the step, not the request', async (t) => {
  const engine = await Engine.load(MODEL, { ...SOFTWARE, gpuKernels: 'gpu.js', ranks: 2, maxRunning: 2 })
  const expected = await engine.generate(PROMPT, { maxTokens: 6, ignoreEos: true })
  const reasons: string[] = []
  engine.on('restart', ({ reason }) => reasons.push(reason.message))
  injectFault(engine, { rank: 1, kind: 'invalid-command', stage: 'all-reduce of the MLP' })
  const { tokens } = await engine.generate(PROMPT, { maxTokens: 6, ignoreEos: true })
  t.deepEqual([...tokens], [...expected.tokens])
  t.regex(reasons.join(), /rank 1 failed: the GPU refused a command/)
  await engine.close()
})

gpuTest('a cache that is too large for the device is an error that says what fits; the next load runs', async (t) => {
  const options = { ...SOFTWARE, gpuKernels: 'gpu.js', ranks: 1, maxRunning: 2 } as const
  const error = await t.throwsAsync(Engine.load(MODEL, { ...options, cacheTokens: 2 ** 25 }), { instanceOf: MemoryError, code: 'MEMORY_EXHAUSTED' })
  t.regex(error.message, /GPU of rank 0 .*expected \d+ MiB.*actual \d+ MiB.*cacheTokens: \d+ would fit/s)
  const engine = await Engine.load(MODEL, options)
  t.is((await engine.generate([1, 2], { maxTokens: 2, ignoreEos: true })).tokens.length, 2)
  await engine.close()
})

gpuTest('a profile names dispatches, and what the host does', async (t) => {
  const engine = await Engine.load(MODEL, { ...SOFTWARE, ranks: 1, maxRunning: 2, profile: true })
  await engine.generate([1, 2, 3], { maxTokens: 3, ignoreEos: true })
  const { steps, ranks, trace } = engine.profile()
  t.is(steps, 3)
  const names = ranks[0]?.parts.map((part) => part.name) ?? []
  for (const name of ['inputs', 'attention', 'gateUp', 'head', 'encode', 'submit', 'readback']) t.true(names.includes(name), `${name} of ${names}`)
  t.true(trace.traceEvents.length > steps * names.length)
  await engine.close()
})

gpuTest('inspect lists the dispatches that ranks report, and who wrote each kernel', async (t) => {
  for (const kernels of [{}, { gpuKernels: 'gpu.js' }] as const) {
    const options = { ...SOFTWARE, ...kernels, ranks: 2, maxRunning: 2 } as const
    const { gpu, layers } = await inspect(MODEL, options)
    const engine = await Engine.load(MODEL, options)
    const ran = dispatches(engine, 0)
    await engine.close()
    t.deepEqual(ran, [...Array.from({ length: layers }, () => gpu?.layer ?? []).flat(), ...(gpu?.end ?? [])])
    t.is(ran.filter(({ origin }) => origin === 'WGSL').length > 0, !('gpuKernels' in kernels))
  }
})

gpuTest('a software adapter is used only when it is named', async (t) => {
  const error = await t.throwsAsync(Engine.load(MODEL, { backend: 'gpu', ranks: 1 }), { instanceOf: RankError })
  t.regex(error.message, /software|adapter/)
})

gpuTest('a named adapter that does not answer is an error, also for auto; options of the GPU are refused by other backends', async (t) => {
  for (const options of [{ adapter: 'no such adapter' }, { backend: 'wasm', adapter: 'SwiftShader' }, { backend: 'wasm', gpuChecks: true }] as const)
    await t.throwsAsync(Engine.load(MODEL, options), { instanceOf: OptionError, code: 'OPTION_INVALID' })
  await t.throwsAsync(Engine.load(MODEL, { backend: 'wasm', cache: 'f16' }), { instanceOf: OptionError })
  await t.throwsAsync(Engine.load(MODEL, { backend: 'wasm', gpuKernels: 'gpu.js' }), { instanceOf: OptionError })
  await t.throwsAsync(Engine.load(MODEL, { ...SOFTWARE, gpuKernels: 'gpu.js', cache: 'bf16' }), { instanceOf: OptionError })
  await t.throwsAsync(inspect(MODEL, { ...SOFTWARE, adapter: 'no such adapter' }), { instanceOf: OptionError })
  const second = { ...SOFTWARE, adapter: ['SwiftShader', 'no such adapter'], ranks: 2 } as const
  const error = await t.throwsAsync(Engine.load(MODEL, second), { instanceOf: RankError })
  t.regex(error.message, /rank 1: no GPU adapter with no such adapter/)
})

gpuTest('a snapshot of devices goes on at another rank count with the bits of a fresh engine, and a lost device loses none', async (t) => {
  const path = join(temporary(t), 'prefix.snapshot')
  for (const [model, options] of [
    ['mlra_4', { gpuKernels: 'gpu.js' }],
    ['tpa', { gpuKernels: 'gpu.js' }],
    ['gqa', { cache: 'f16' }],
  ] as const) {
    const load = (more: EngineOptions) => Engine.load(`${FIXTURES}golden/${model}`, { ...SOFTWARE, maxRunning: 4, ...options, ...more })
    const first = await load({ ranks: 1 })
    const whole = [...PROMPT, 5, 9]
    const expected = await first.generate(whole, { maxTokens: 5, ignoreEos: true })
    t.is((await first.saveSnapshot(PROMPT, path)).tokens, PROMPT.length)
    await first.close()
    const other = await load({ ranks: 2 })
    t.is((await other.loadSnapshot(path)).tokens.length, PROMPT.length)
    const actual = await other.generate(whole, { maxTokens: 5, ignoreEos: true })
    t.is(actual.usage.cachedTokens, PROMPT.length, model)
    t.deepEqual(actual.tokens, expected.tokens, model)
    injectFault(other, { rank: 1, kind: 'device-lost' })
    t.deepEqual((await other.generate(whole, { maxTokens: 5, ignoreEos: true })).tokens, expected.tokens)
    t.is((await other.loadSnapshot(path)).tokens.length, PROMPT.length)
    t.deepEqual((await other.generate(whole, { maxTokens: 5, ignoreEos: true })).tokens, expected.tokens)
    await other.close()
  }
})
