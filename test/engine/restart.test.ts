// A rank that fails costs no request: the group restarts over the same memories and what was in flight is computed again.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { Engine, type EngineOptions, RankError, type RestartEvent, synthesize } from '../../src/index.js'
import { type FaultKind, injectFault, pages, recordLogits, type Stage, terminateThread } from '../../src/testing.js'
import { TINY } from '../support/fixtures.js'
import { copyOf, temporary } from '../support/models.js'
import { full, inFull, quickIf } from '../support/tier.js'
import { until } from '../support/until.js'

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

let oneRank: ReturnType<typeof undisturbed> | undefined
/** What one rank gives; computed by the first test that asks. */
const expected = () => {
  oneRank ??= undisturbed({ ranks: 1 })
  return oneRank
}

/** An engine whose checkpoint is gone, and the restarts it tells of. */
async function loadAndDelete(t: { teardown(f: () => void): void }, options: EngineOptions): Promise<{ engine: Engine; restarts: RestartEvent[] }> {
  const dir = copyOf(t, TINY)
  const engine = await Engine.load(dir, options)
  rmSync(dir, { recursive: true })
  const restarts: RestartEvent[] = []
  engine.on('restart', (event) => restarts.push(event))
  return { engine, restarts }
}

const COLLECTIVES: Stage[] = [
  'gather of query latents',
  'gather of queries',
  'reduce-scatter of attention outputs',
  'all-reduce of the attention projection',
  'all-reduce of the MLP',
  'gather of logits',
  'sampling',
]

for (const ranks of [1, 2, 4] as const) {
  const declare = quickIf(ranks === 2)
  declare(`${ranks} ranks: each rank throws, exits, runs out of memory, and hangs; no request is lost and no bit changes`, async (t) => {
    const { engine, restarts } = await loadAndDelete(t, { ranks, maxRestarts: 100 })
    const faulty = Array.from({ length: ranks }, (_, rank) => rank).slice(inFull ? 0 : -1)
    const wanted: RegExp[] = []
    for (const rank of faulty) {
      for (const [kind, message] of [
        ['throw', new RegExp(`rank ${rank} failed: injected fault`)],
        ['exit', /a worker thread exited/],
        ['out-of-memory', /memory|exited/],
      ] as [FaultKind, RegExp][]) {
        const actual = await outputs(engine, () => injectFault(engine, { rank, kind }))
        t.deepEqual(actual, await expected(), `rank ${rank}: ${kind}`)
        wanted.push(message)
      }
    }
    t.is(restarts.length, wanted.length)
    for (const [i, { reason }] of restarts.entries()) t.regex(reason.message, wanted[i] as RegExp)
    t.log(`recovery: ${restarts.map((r) => `${r.recoveryMs.toFixed(0)} ms`).join(', ')}`)
    t.is(engine.stats().restarts, wanted.length)
    t.is(pages(engine).free, pages(engine).all)
    await engine.close()

    // A short deadline is this engine's alone: on a busy machine it may pass for a rank that is well, too.
    const hanging = await loadAndDelete(t, { ranks, stepDeadlineMs: 2000, maxRestarts: 100 })
    for (const rank of faulty) {
      const before = hanging.restarts.length
      const actual = await outputs(hanging.engine, () => injectFault(hanging.engine, { rank, kind: 'hang' }))
      t.deepEqual(actual, await expected(), `rank ${rank}: hang`)
      const reasons = hanging.restarts.slice(before).map(({ reason }) => reason.message)
      t.true(
        reasons.some((reason) => reason.includes(`rank ${rank} `)),
        reasons.join('\n'),
      )
    }
    await hanging.engine.close()
  })
}

full('a rank dies inside each collective, in prefill and in decode', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 2, maxRestarts: 100 })
  let faults = 0
  for (const stage of COLLECTIVES) {
    for (const kind of ['throw', 'exit'] as const) {
      const before = restarts.length
      const actual = await outputs(engine, () => injectFault(engine, { rank: 1, kind, stage }))
      t.deepEqual(actual, await expected(), `${kind} in ${stage}`)
      // The gathers of queries are left out where the plan computes those projections whole.
      faults += restarts.length - before
    }
  }
  t.true(faults >= 2 * (COLLECTIVES.length - 2))
  await engine.close()
})

full('a rank dies in the middle of decoding', async (t) => {
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

full('threads ended from outside while idle, while decoding, and as soon as they are back', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 2, maxRestarts: 100 })
  const first = new Promise((resolve) => engine.on('restart', resolve))
  await terminateThread(engine, 0)
  await first
  t.deepEqual(await outputs(engine), await expected())
  let again: Promise<void> | undefined
  engine.on('restart', () => {
    again ??= terminateThread(engine, 0)
  })
  t.deepEqual(await outputs(engine, () => terminateThread(engine, 1)), await expected())
  await until(() => restarts.length >= 3)
  await again
  t.deepEqual(await outputs(engine), await expected())
  await engine.close()
})

test('a slow rank is waited for, not restarted', async (t) => {
  const { engine, restarts } = await loadAndDelete(t, { ranks: 2 })
  t.deepEqual(await outputs(engine, () => injectFault(engine, { rank: 1, kind: 'slow' })), await expected())
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

full('a step that takes longer than the deadline is no failure while the ranks get on', async (t) => {
  const DEADLINE_MS = 1000
  // The coordinator waits for progress for the deadline and 1 s of grace. With so many layers a step makes progress some hundred times.
  const patienceMs = DEADLINE_MS + 1000
  const dir = join(temporary(t), 'deep')
  const widths = { n_embd: 128, n_head: 4, intermediate_size: 256, q_lora_rank: 64, kv_lora_rank: 64, qk_nope_head_dim: 32, qk_rope_head_dim: 16 }
  await synthesize(dir, { variant: 'mlra_4', config: { ...widths, n_layer: 64, vocab_size: 64, block_size: 1024 } })
  let longest = 0
  // A chunk of 64 rows takes some seconds in float64 JavaScript; where it does not, a larger one does.
  for (let rows = 64; longest < patienceMs && rows < 1024; rows *= 2) {
    const engine = await Engine.load(dir, { ranks: 1, backend: 'reference', stepDeadlineMs: DEADLINE_MS, prefillChunk: rows, maxRunning: 1 })
    const start = performance.now()
    await engine.generate(Array(rows).fill(1), { maxTokens: 1, ignoreEos: true })
    longest = performance.now() - start
    t.is(engine.stats().restarts, 0)
    await engine.close()
  }
  t.log(`${longest.toFixed(0)} ms`)
  t.true(longest > patienceMs)
})
