// Texts under a schema on a software GPU: ranks sample there as on the CPU, from logits that are read back.
import { Engine, type GenerateParams } from '../../src/index.js'
import { injectFault } from '../../src/testing.js'
import { TINY } from '../support/fixtures.js'
import { gpuTest, SOFTWARE } from '../support/software-gpu.js'

const SCHEMA = { type: 'object', properties: { name: { type: 'string', maxLength: 4 }, happy: { type: 'boolean' } }, required: ['name', 'happy'] }
const CASES: readonly GenerateParams[] = [
  { jsonSchema: SCHEMA, maxTokens: 24 },
  { jsonSchema: SCHEMA, maxTokens: 24, temperature: 1, seed: 5 },
  { choice: ['yes', 'no', 'über'], temperature: 1, seed: 7 },
  { maxTokens: 6 },
]

const outputs = (engine: Engine, params: GenerateParams) =>
  engine.generate('Once upon a time', params).then(({ tokens, text, finishReason }) => ({ tokens, text, finishReason }))

gpuTest('alone, in a batch, at two ranks and after a fault, constrained requests have the same tokens', async (t) => {
  const one = await Engine.load(TINY, { ...SOFTWARE, ranks: 1, maxRunning: 4, maxRestarts: 10 })
  t.teardown(() => one.close())
  const alone = []
  for (const params of CASES) alone.push(await outputs(one, params))
  for (const { text } of alone.slice(0, 2)) t.deepEqual(Object.keys(JSON.parse(text)), ['name', 'happy'])
  t.true(['yes', 'no', 'über'].includes(alone[2]?.text as string))
  t.deepEqual(await Promise.all(CASES.map((params) => outputs(one, params))), alone)
  const running = Promise.all(CASES.map((params) => outputs(one, params)))
  await outputs(one, { maxTokens: 2 })
  injectFault(one, { rank: 0, kind: 'throw' })
  t.deepEqual(await running, alone)
  t.true(one.stats().restarts > 0)
  const two = await Engine.load(TINY, { ...SOFTWARE, ranks: 2, maxRunning: 4 })
  t.teardown(() => two.close())
  t.deepEqual(await Promise.all(CASES.map((params) => outputs(two, params))), alone)
})
