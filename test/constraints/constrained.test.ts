// Texts under a grammar: the same tokens however they are computed, their ends, and grammars that fail.
import test from 'ava'
import { Engine, type GenerateManyParams, type GenerateParams, OptionError, RequestError } from '../../src/index.js'
import { injectFault } from '../../src/testing.js'
import { TINY } from '../support/fixtures.js'
import { full, quickIf } from '../support/tier.js'

const PERSON = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 20 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    tags: { type: 'array', items: { enum: ['é', 'b', 'c'] }, maxItems: 3 },
  },
  required: ['name', 'age', 'tags'],
}
const PROMPT = 'Once upon a time'
const CASES: readonly GenerateParams[] = [
  { jsonSchema: PERSON },
  { jsonSchema: PERSON, temperature: 0.9, seed: 4, logprobs: 2 },
  { jsonSchema: PERSON, temperature: 1, seed: 5, topK: 40, repetitionPenalty: 1.1, logitBias: { 11: 3 } },
  { regex: '[A-Z][a-z]{2,8} (king|queen)[.!]', temperature: 1, seed: 6 },
  { choice: ['yes', 'no', 'über'], temperature: 1, seed: 7 },
  { grammar: 'root ::= "<" word ("," word){2} ">" # three\nword ::= [a-zé]{1,6}', temperature: 1, seed: 8 },
  { jsonSchema: { type: 'object' }, temperature: 0.5, seed: 9, stop: ['"'] },
  { jsonSchema: PERSON, speculate: { ngram: 1, maxTokens: 4 } },
  // Without a constraint, in the same batches.
  { temperature: 0.8, seed: 10 },
]

const outputs = (engine: Engine, params: GenerateParams) =>
  engine.generate(PROMPT, { maxTokens: 60, ...params }).then(({ tokens, text, finishReason, logprobs }) => ({ tokens, text, finishReason, logprobs }))

async function alone(engine: Engine) {
  const found = []
  for (const params of CASES) found.push(await outputs(engine, params))
  return found
}

let expected: ReturnType<typeof alone> | undefined
async function oneRank() {
  const engine = await Engine.load(TINY, { ranks: 1 })
  const found = await alone(engine)
  await engine.close()
  return found
}

for (const ranks of [1, 2, 4] as const) {
  quickIf(ranks === 2)(
    `at ${ranks} ranks, in a batch with others and after a fault, constrained requests give the tokens of one rank alone`,
    async (t) => {
      expected ??= oneRank()
      const wanted = await expected
      const engine = await Engine.load(TINY, { ranks, maxRunning: 4, maxRestarts: 10 })
      t.teardown(() => engine.close())
      t.deepEqual(await Promise.all(CASES.map((params) => outputs(engine, params))), wanted)
      const running = Promise.all(CASES.map((params) => outputs(engine, params)))
      await outputs(engine, { maxTokens: 2 })
      injectFault(engine, { rank: ranks - 1, kind: 'throw' })
      t.deepEqual(await running, wanted)
      t.true(engine.stats().restarts > 0)
    },
  )
}

test('ends: complete is stop, maxTokens in the middle is length, and texts match', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  t.teardown(() => engine.close())
  const whole = await engine.generate(PROMPT, { jsonSchema: PERSON, maxTokens: 80 })
  t.is(whole.finishReason, 'stop')
  t.deepEqual(Object.keys(JSON.parse(whole.text)), ['name', 'age', 'tags'])
  const cut = await engine.generate(PROMPT, { jsonSchema: PERSON, maxTokens: 5 })
  t.is(cut.finishReason, 'length')
  t.true(whole.text.startsWith(cut.text))
  const many = await engine.generateMany([PROMPT], { regex: '(a|b){3}', n: 3, temperature: 2, seed: 1 } satisfies GenerateManyParams)
  for (const { text } of many) t.regex(text, /^[ab]{3}$/)
  const tag = { triggers: ['<f'], tags: [{ begin: '<f>', schema: { type: 'integer' }, end: '</f>' }], atLeastOne: true, stopAfterFirst: true }
  t.regex((await engine.generate(PROMPT, { structuralTag: tag, maxTokens: 60 })).text, /^<f>-?\d+<\/f>$/)
  // Free text until a trigger that the model writes by itself, and free again after it.
  const within = { triggers: ['e'], tags: [{ begin: 'e', schema: { enum: [7, 8] }, end: '|' }] }
  const { text } = await engine.generate(PROMPT, { structuralTag: within, maxTokens: 60, temperature: 1, seed: 1 })
  t.regex(text, /^[^e]+(e[78]\|[^e]*)+(e[78]?)?$/)
  const list = { ...tag, stopAfterFirst: false, separator: ',', tags: [{ begin: '<f>', schema: { const: 1 }, end: '</f>' }] }
  const listed = await engine.generate(PROMPT, { structuralTag: list, maxTokens: 60, temperature: 1, seed: 1 })
  t.regex(`${listed.text},`, listed.finishReason === 'stop' ? /^(<f>1<\/f>,)+$/ : /^(<f>1<\/f>,)+/)
})

test('grammars that are wrong, or too much, fail their own request; the others go on', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  t.teardown(() => engine.close())
  const good = engine.generate(PROMPT, { jsonSchema: PERSON, maxTokens: 60 })
  const rejects = (params: GenerateParams, code: string) =>
    t.throwsAsync(async () => engine.generate(PROMPT, { maxTokens: 5, ...params }), {
      code,
      instanceOf: code === 'OPTION_INVALID' ? OptionError : RequestError,
    })
  await Promise.all([
    rejects({ grammar: 'root ::= missing' }, 'CONSTRAINT_FAILED'),
    rejects({ grammar: `root ::= ${'('.repeat(3000)}"a"${')'.repeat(3000)}` }, 'CONSTRAINT_FAILED'),
    rejects({ regex: '(?<=a)b' }, 'OPTION_INVALID'),
    rejects({ regex: 'a(' }, 'OPTION_INVALID'),
    rejects({ choice: [] }, 'OPTION_INVALID'),
    rejects({ jsonSchema: {}, regex: 'a' }, 'OPTION_INVALID'),
    rejects({ jsonSchema: {}, ignoreEos: true }, 'OPTION_INVALID'),
    rejects({ jsonSchema: {}, minTokens: 3 }, 'OPTION_INVALID'),
    rejects({ jsonSchema: { enum: ['x'.repeat(70_000)] } }, 'OPTION_INVALID'),
  ])
  t.is((await good).finishReason, 'stop')
  t.is((await engine.generate(PROMPT, { choice: ['yes'] })).text, 'yes')
})

full('a grammar that is too costly fails, and requests beside it keep their tokens', async (t) => {
  const engine = await Engine.load(TINY, { ranks: 1 })
  t.teardown(() => engine.close())
  const wanted = await outputs(engine, { jsonSchema: PERSON })
  const hostile = `root ::= ${Array.from({ length: 12 }, () => '(((a{0,200}){0,200}){0,200})').join(' ')}\na ::= [a-z] a | [a-z]? "x"`
  const failing = t.throwsAsync(async () => engine.generate(PROMPT, { grammar: hostile, maxTokens: 3 }), { code: 'CONSTRAINT_FAILED' })
  t.deepEqual(await outputs(engine, { jsonSchema: PERSON }), wanted)
  await failing
  t.deepEqual(await outputs(engine, { jsonSchema: PERSON }), wanted)
})
