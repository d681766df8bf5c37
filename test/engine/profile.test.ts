import test from 'ava'
import { Engine, formatProfile, OptionError } from '../../src/index.js'
import { TINY } from '../support/fixtures.js'

test('a profile names kernels, waits and the coordinator; parts make the step; the trace is what Chrome reads', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 2, profile: true })
  const plain = await Engine.load(TINY, { ranks: 2 })
  await engine.generate([5, 6, 7], { maxTokens: 10, ignoreEos: true })
  engine.profile()
  const { tokens } = await engine.generate([5, 6, 8], { maxTokens: 20, ignoreEos: true })
  t.deepEqual(tokens, (await plain.generate([5, 6, 8], { maxTokens: 20, ignoreEos: true })).tokens)
  const profile = engine.profile()
  t.is(profile.ranks.length, 2)
  t.true(profile.steps >= 20 && profile.dropped === 0)
  for (const { stepMs, parts } of profile.ranks) {
    const names = parts.map((p) => p.name)
    for (const name of ['gateUp', 'down', 'attentionOut', 'head', 'attendPage', 'rmsNorm', 'wait: all-reduce of the MLP', 'other'])
      t.true(names.includes(name), name)
    t.is(parts.find((p) => p.name === 'gateUp')?.calls, profile.steps * 8 * 2)
    t.true(Math.abs(parts.reduce((sum, p) => sum + p.ms, 0) - stepMs) < 1e-6)
    t.true(parts.every((p) => p.ms >= 0 && p.share >= 0 && p.share <= 1))
  }
  t.true(profile.coordinator.some((p) => p.name === 'schedule'))
  const events = profile.trace.traceEvents as { ph: string; name: string; ts?: number; dur?: number; tid: number }[]
  t.deepEqual(
    events.filter((e) => e.ph === 'M').map((e) => e.tid),
    [0, 1, 2],
  )
  t.true(events.filter((e) => e.ph === 'X').every((e) => (e.ts as number) >= 0 && (e.dur as number) >= 0))
  t.regex(formatProfile(profile), /microseconds a step[\s\S]*wait: all-reduce of the MLP[\s\S]*coordinator: /)
  t.is(engine.profile().steps, 0)
  await engine.close()
  t.throws(() => plain.profile(), { instanceOf: OptionError })
  await plain.close()
})
