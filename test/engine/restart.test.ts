// A rank that fails costs no request: the group restarts over the same memories and what was in flight is computed again.
import { rmSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { Engine, type EngineOptions, RankError, type RestartEvent } from '../../src/index.js'
import { type FaultKind, injectFault, pages, recordLogits, type Site, terminateThread } from '../../src/testing.js'
import { TINY } from '../support/fixtures.js'
import { copyOf } from '../support/models.js'

const PROMPTS = ['Once upon a time', 'The king', Array.from({ length: 150 }, (_, i) => (i * 37) % 4096)]

/** Tokens and logit bits of the prompts, decoded together. */
async function outputs(engine: Engine, disturb: () => unknown = () => {}) {
  const recorder = recordLogits(engine)
  const all = PROMPTS.map((prompt, seed) => engine.generate(prompt, { maxTokens: 40, ignoreEos: true, seed }))
  // Once the first step has been published.
  await setImmediate()
  await disturb()
  const completions = await Promise.all(all)
  recorder.stop()
  return {
    tokens: completions.map((c) => [...c.tokens]),
    hashes: recorder.rows.map(({ seed, position, hash }) => `${seed} ${position} ${hash}`).sort(),
  }
}

async function undisturbed(options: EngineOptions) {
  const engine = await Engine.load(TINY, options)
  const result = await outputs(engine)
  await engine.close()
  return result
}

const expected = undisturbed({ ranks: 1 })

/** An engine whose checkpoint is gone, and the restarts it tells of. */
async function loadAndDelete(t: { teardown(f: () => void): void }, options: EngineOptions): Promise<{ engine: Engine; restarts: RestartEvent[] }> {
  const dir = copyOf(t, TINY)
  const engine = await Engine.load(dir, options)
  rmSync(dir, { recursive: true })
  const restarts: RestartEvent[] = []
  engine.on('restart', (event) => restarts.push(event))
  return { engine, restarts }
}

const COLLECTIVES: Site[] = [
  'gather of query latents',
  'gather of queries',
  'reduce-scatter of attention outputs',
  'all-reduce of the attention projection',
  'all-reduce of the MLP',
  'gather of logits',
  'sampling',
]

for (const ranks of [1, 2, 4] as const) {
  test(`${ranks} ranks: each rank throws, exits, hangs, and runs out of memory; no request is lost and no bit changes`, async (t) => {
    const { engine, restarts } = await loadAndDelete(t, { ranks, stepDeadlineMs: 3000, maxRestarts: 100 })
    const wanted: RegExp[] = []
    for (let rank = 0; rank < ranks; rank++) {
      for (const [kind, message] of [
        ['throw', new RegExp(`rank ${rank} failed: injected fault`)],
        ['exit', /a worker thread exited/],
        ['hang', new RegExp(`rank ${rank} `)],
        ['out-of-memory', /memory|exited/],
      ] as [FaultKind, RegExp][]) {
        const actual = await outputs(engine, () => injectFault(engine, { rank, kind }))
        t.deepEqual(actual, await expected, `rank ${rank}: ${kind}`)
        wanted.push(message)
      }
    }
    t.is(restarts.length, wanted.length)
    for (const [i, { reason }] of restarts.entries()) t.regex(reason.message, wanted[i] as RegExp)
    t.log(`recovery: ${restarts.map((r) => `${r.recoveryMs.toFixed(0)} ms`).join(', ')}`)
    t.is(engine.stats().restarts, wanted.length)
    t.is(pages(engine).free, pages(engine).all)
    await engine.close()
  })
}

test('a rank dies inside each collective, in prefill and in decode', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 2, maxRestarts: 100 })
  let faults = 0
  for (const site of COLLECTIVES) {
    for (const kind of ['throw', 'exit'] as const) {
      const before = restarts.length
      const actual = await outputs(engine, () => injectFault(engine, { rank: 1, kind, site }))
      t.deepEqual(actual, await expected, `${kind} in ${site}`)
      // The gathers of queries are left out where the plan computes those projections whole.
      faults += restarts.length - before
    }
  }
  t.true(faults >= 2 * (COLLECTIVES.length - 2))
  await engine.close()
})

test('a rank dies in the middle of decoding', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 4 })
  const quiet = await engine.generate('Once upon a time', { maxTokens: 60, ignoreEos: true })
  const tokens: number[] = []
  for await (const chunk of engine.generate('Once upon a time', { maxTokens: 60, ignoreEos: true })) {
    tokens.push(...chunk.tokens)
    if (tokens.length === 20) injectFault(engine, { rank: 3, kind: 'exit' })
  }
  t.deepEqual(tokens, [...quiet.tokens])
  t.is(restarts.length, 1)
  await engine.close()
})

test('threads ended from outside while idle, and again during the restart', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 2, maxRestarts: 100 })
  const first = new Promise((resolve) => engine.on('restart', resolve))
  await terminateThread(engine, 0)
  await first
  t.deepEqual(await outputs(engine), await expected)
  const twice = outputs(engine, async () => {
    await terminateThread(engine, 1)
    setTimeout(() => void terminateThread(engine, 0).catch(() => {}), 60)
  })
  t.deepEqual(await twice, await expected)
  t.true(restarts.length >= 2)
  await engine.close()
})

test('a slow rank is waited for, not restarted', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 2 })
  t.deepEqual(await outputs(engine, () => injectFault(engine, { rank: 1, kind: 'slow' })), await expected)
  t.is(restarts.length, 0)
  await engine.close()
})

test('after maxRestarts within the window every waiting request gets the error, and so does the next', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 2, maxRestarts: 1 })
  await outputs(engine, () => injectFault(engine, { rank: 0, kind: 'throw' }))
  injectFault(engine, { rank: 0, kind: 'throw' })
  const failed = await Promise.allSettled(PROMPTS.map((prompt) => engine.generate(prompt, { maxTokens: 20 })))
  for (const result of failed) {
    t.is(result.status, 'rejected')
    t.true((result as PromiseRejectedResult).reason instanceof RankError)
    t.regex((result as PromiseRejectedResult).reason.message, /rank 0 failed: injected fault; the ranks were restarted 1 times/)
  }
  t.is(restarts.length, 1)
  await t.throwsAsync(async () => await engine.generate('Once'), { instanceOf: RankError })
  await engine.close()
})

test('a step that takes longer than the deadline is no failure while the ranks get on', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 1, backend: 'reference', stepDeadlineMs: 300, prefillChunk: 64 })
  const start = performance.now()
  await engine.generate(
    Array.from({ length: 64 }, (_, i) => i),
    { maxTokens: 1, ignoreEos: true },
  )
  // The deadline and its grace are 1.3 s; a chunk of 64 in float64 JavaScript takes several.
  t.log(`${(performance.now() - start).toFixed(0)} ms`)
  t.is(restarts.length, 0)
  await engine.close()
})
