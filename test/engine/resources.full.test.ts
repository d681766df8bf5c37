import test from 'ava'
import { Engine } from '../../src/index.js'
import { TINY } from '../support/fixtures.js'
import { INDEX, program } from '../support/program.js'

test('an engine that was dropped without close does not keep the process alive, idle or after a request', async (t) => {
  t.is(await program(`import { Engine } from ${INDEX}; await Engine.load(${JSON.stringify(TINY)}, { ranks: 2 }); console.log('loaded')`), 'loaded')
})

test('two engines in one process do not disturb each other', async (t) => {
  const alone = await Engine.load(TINY, { ranks: 2 })
  const expected = await alone.generate('Once upon a time', { maxTokens: 40 })
  await alone.close()
  const [a, b] = await Promise.all([Engine.load(TINY, { ranks: 4 }), Engine.load(TINY, { ranks: 1 })])
  const both = await Promise.all([a.generate('Once upon a time', { maxTokens: 40 }), b.generate('Once upon a time', { maxTokens: 40 })])
  for (const { tokens } of both) t.deepEqual(tokens, expected.tokens)
  await a.close()
  t.deepEqual((await b.generate('Once upon a time', { maxTokens: 40 })).tokens, expected.tokens)
  await b.close()
})
