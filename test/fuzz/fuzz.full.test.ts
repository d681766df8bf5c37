// The same inputs every time, so that a run tells about the change that it tests; npm run fuzz draws new ones.
import test from 'ava'
import fc from 'fast-check'
import { judge, TARGETS } from './targets.js'

for (const target of TARGETS) {
  test(`${target.name}: every mutated input is read correctly or refused with a typed error`, async (t) => {
    const seen = { read: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(target.inputs, async (bytes) => {
        seen[await judge(target, bytes)]++
      }),
      { seed: 20261124, numRuns: target.name === 'tokenizer' ? 300 : 3000 },
    )
    t.log(`${seen.read} read, ${seen.refused} refused`)
    t.true(seen.refused > 0)
  })
}
