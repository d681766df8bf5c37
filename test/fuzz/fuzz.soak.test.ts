// Ten times the inputs of the full tier, new ones in every run; a failure prints the seed that repeats it.
import test from 'ava'
import fc from 'fast-check'
import { judge, TARGETS } from './targets.js'

for (const target of TARGETS) {
  test(`${target.name}: every mutated input of a new seed is read correctly or refused with a typed error`, async (t) => {
    t.timeout(1_800_000)
    const property = fc.asyncProperty(target.inputs, async (bytes) => void (await judge(target, bytes)))
    await t.notThrowsAsync(fc.assert(property, { numRuns: target.name === 'tokenizer' ? 3000 : 30_000 }) as Promise<void>)
  })
}
