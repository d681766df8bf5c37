// What benchmarks compute beside times.
import test from 'ava'
import { attentionInstructions } from '../../bench/model/attention-work.js'
import { calibrate, predict } from '../../bench/model/step-time.js'
import { benchShape } from '../../bench/models.js'

test('ranks that share the heads of a latent do more together than one alone; those with a latent each load the rope key more often', (t) => {
  const work = (variant: string) => ([1, 2, 4] as const).map((ranks) => attentionInstructions(benchShape('small', variant).attention, ranks))
  // Groups of four heads have their own keys at every rank count.
  t.is(new Set(work('gqa')).size, 1)
  const [one, two, four] = work('mla') as [number, number, number]
  t.is(one, two)
  t.true(four > 1.2 * two)
  const latents = work('mlra_4') as [number, number, number]
  t.true(latents[0] < latents[1] && latents[1] < latents[2] && latents[2] / latents[0] < four / one)
})

test('the model of a step: a line is found again, and effects of ranks are applied to its parts', (t) => {
  const cells = [1024, 4096, 16384].map((context) => ({ context, ms: 3 + 0.001 * context }))
  const line = calibrate('mla', cells, 2)
  if (!line) return t.fail()
  t.true(Math.abs(line.baseMs - 3) < 1e-9 && Math.abs(line.perTokenMs - 0.001) < 1e-12)
  const alone = { weights: 1, attention: 1, collectives: 0, collectiveMs: 0 }
  t.true(Math.abs(predict(line, 65536, alone) - (3 + 65.536)) < 1e-9)
  // 1 ms stays, weights and attention are shared by two, and 10 collectives are added.
  t.true(Math.abs(predict(line, 65536, { weights: 2, attention: 2, collectives: 10, collectiveMs: 0.1 }) - (1 + 1 + 32.768 + 1)) < 1e-9)
  t.is(calibrate('mla', cells.slice(0, 1), 2), undefined)
  t.is(
    calibrate(
      'mla',
      [...cells].map(({ context, ms }) => ({ context, ms: 30 - ms })),
      2,
    ),
    undefined,
  )
})
