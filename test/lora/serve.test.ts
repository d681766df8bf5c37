// Adapters over HTTP: models of their own names, chosen by `model` or `lora`, loaded and unloaded where the server allows it; and --lora.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { engineOptions, generateParams } from '../../src/commands/flags.js'
import { Engine } from '../../src/index.js'
import { createServer } from '../../src/serve/server.js'
import { loadChatTemplate } from '../../src/tokenizer/chat-template.js'
import { writeAdapter } from '../support/adapters.js'
import { ROOT, TINY } from '../support/fixtures.js'
import { readTensors, temporary } from '../support/models.js'
import { full } from '../support/tier.js'

full('a server has adapters as models, and loads and unloads them where it may', async (t) => {
  const dir = temporary(t)
  const tensors = await readTensors(TINY)
  const [king, wolf] = [join(dir, 'king'), join(dir, 'wolf')] as const
  writeAdapter(king, tensors, { seed: 1, rank: 4, size: 0.1, modules: ['q_b_proj', 'c_proj', 'c_fc1'] })
  writeAdapter(wolf, tensors, { seed: 2, rank: 4, size: 0.1, modules: ['c_proj'] })
  const engine = await Engine.load(TINY, { backend: 'wasm', ranks: 2, maxContext: 256, adapters: { king } })
  t.teardown(() => engine.close())
  const models = new Map([['tiny', { id: 'tiny', engine, template: await loadChatTemplate(TINY), created: 1 }]])
  const { app } = createServer(models, { adapterUpdates: true })
  t.teardown(() => app.close())
  const post = async (url: string, body: object) => {
    const response = await app.inject({ method: 'POST', url, payload: body })
    return { status: response.statusCode, text: response.body, json: () => response.json() as unknown }
  }
  const complete = async (body: object) =>
    (await post('/v1/completions', { prompt: 'Once upon a time', max_tokens: 12, temperature: 0, ...body })).json()
  const textOf = (answer: unknown) => (answer as { choices: { text: string }[] }).choices[0]?.text

  const list = (await app.inject('/v1/models')).json() as { data: { id: string; parent?: string }[] }
  t.deepEqual(
    list.data.map(({ id, parent }) => [id, parent]),
    [
      ['tiny', undefined],
      ['king', 'tiny'],
    ],
  )
  t.like((await app.inject('/v1/models/king')).json(), { id: 'king', object: 'model', parent: 'tiny' })
  const plain = (await engine.generate('Once upon a time', { maxTokens: 12 })).text
  const ofKing = (await engine.generate('Once upon a time', { maxTokens: 12, lora: 'king' })).text
  t.not(plain, ofKing)
  const byModel = await complete({ model: 'king' })
  t.is((byModel as { model: string }).model, 'king')
  t.is(textOf(byModel), ofKing)
  t.is(textOf(await complete({ model: 'tiny', lora: 'king' })), ofKing)
  t.is(textOf(await complete({ model: 'tiny' })), plain)
  const chat = await post('/v1/chat/completions', { model: 'king', messages: [{ role: 'user', content: 'Hello' }], max_tokens: 4 })
  t.is(chat.status, 200)

  const refused = await post('/v1/completions', { model: 'tiny', prompt: 'x', lora: 'wolf' })
  t.is(refused.status, 404)
  t.like((refused.json() as { error: object }).error, { param: 'lora', code: 'adapter_not_found' })
  t.is((await post('/v1/completions', { model: 'wolf', prompt: 'x' })).status, 404)
  t.is((await post('/v1/completions', { model: 'king', lora: 'wolf', prompt: 'x' })).status, 400)

  t.like(await post('/v1/load_lora_adapter', { lora_name: 'wolf', lora_path: wolf }), { status: 200 })
  t.is(textOf(await complete({ model: 'wolf' })), (await engine.generate('Once upon a time', { maxTokens: 12, lora: 'wolf' })).text)
  const again = await post('/v1/load_lora_adapter', { lora_name: 'wolf', lora_path: wolf })
  t.is(again.status, 400)
  for (const [body, param] of [
    [{ lora_name: 'tiny', lora_path: wolf }, 'lora_name'],
    [{ lora_name: 'x', lora_path: join(dir, 'nowhere') }, undefined],
    [{ lora_name: 'x', lora_path: wolf, base_model_name: 'other' }, 'base_model_name'],
    [{ lora_name: 'x' }, 'lora_path'],
  ] as const) {
    const wrong = await post('/v1/load_lora_adapter', body)
    t.true(wrong.status === 400 || wrong.status === 404, wrong.text)
    if (param) t.is((wrong.json() as { error: { param: string } }).error.param, param)
  }
  t.is((await post('/v1/unload_lora_adapter', { lora_name: 'wolf' })).status, 200)
  t.is((await post('/v1/unload_lora_adapter', { lora_name: 'wolf' })).status, 404)
  t.is((await post('/v1/completions', { model: 'wolf', prompt: 'x' })).status, 404)

  const { app: closed } = createServer(models)
  t.teardown(() => closed.close())
  for (const url of ['/v1/load_lora_adapter', '/v1/unload_lora_adapter']) {
    const response = await closed.inject({ method: 'POST', url, payload: { lora_name: 'king', ...(url.includes('/load') && { lora_path: king }) } })
    t.is(response.statusCode, 403)
  }
  t.deepEqual(
    engine.adapters.map(({ name }) => name),
    ['king'],
  )
})

test('--lora name=directory', (t) => {
  t.deepEqual(engineOptions({ lora: ['a=x/y', 'b=z=1'] }).adapters, { a: 'x/y', b: 'z=1' })
  t.is(generateParams({ lora: ['a=x'] }).lora, 'a')
  t.throws(() => generateParams({ lora: ['a=x', 'b=y'] }), { code: 'OPTION_INVALID', message: /--lora/ })
  t.throws(() => engineOptions({ lora: ['a'] }), { code: 'OPTION_INVALID', message: /--lora has no name/ })
  t.throws(() => engineOptions({ lora: ['a=x', 'a=y'] }), { code: 'OPTION_INVALID', message: /two adapters/ })
})

full('generate has the adapter of --lora', async (t) => {
  const dir = temporary(t)
  writeAdapter(dir, await readTensors(TINY), { seed: 1, rank: 4, size: 0.1, modules: ['q_b_proj', 'c_proj', 'c_fc1'] })
  const args = ['dist/src/cli.js', 'generate', 'The king', '--max-tokens', '6', '--json', '--backend', 'wasm', '--ranks', '1', '--max-context', '64']
  const run = async (...more: string[]) => JSON.parse((await promisify(execFile)(process.execPath, [...args, ...more], { cwd: ROOT })).stdout)
  const [plain, adapted] = [await run(), await run('--lora', `x=${dir}`)]
  t.notDeepEqual(plain.tokens, adapted.tokens)
})

full('eval and batch have the adapter of --lora', async (t) => {
  const dir = temporary(t)
  const adapter = join(dir, 'adapter')
  writeAdapter(adapter, await readTensors(TINY), { seed: 1, rank: 4, size: 0.1, modules: ['q_b_proj', 'c_proj', 'c_fc1'] })
  const engine = await Engine.load(TINY, { backend: 'wasm', ranks: 1, maxContext: 256, adapters: { x: adapter } })
  t.teardown(() => engine.close())
  const fixed = ['--backend', 'wasm', '--ranks', '1', '--max-context', '256', '--lora', `x=${adapter}`, '--json']
  const run = (...args: string[]) => promisify(execFile)(process.execPath, ['dist/src/cli.js', ...args, ...fixed], { cwd: ROOT })

  const tokens = join(dir, 'tokens.bin')
  const ids = Array.from({ length: 129 }, (_, i) => (i * 37) % 500)
  writeFileSync(tokens, Buffer.from(Uint16Array.from(ids).buffer))
  const { meanLoss } = JSON.parse((await run('eval', 'perplexity', tokens, '--block-size', '64')).stdout)
  t.is(meanLoss, (await engine.perplexity(ids, { blockSize: 64, lora: 'x' })).meanLoss)
  t.not(meanLoss, (await engine.perplexity(ids, { blockSize: 64 })).meanLoss)

  const item = { query: 'The king', choices: [' was old.', ' ran away.'], gold: 0 }
  const items = join(dir, 'items.jsonl')
  writeFileSync(items, JSON.stringify(item))
  const chosen = JSON.parse((await run('eval', 'multiple-choice', items)).stdout)
  t.deepEqual(chosen.items, (await engine.multipleChoice([item], { lora: 'x' })).items)
  await t.throwsAsync(run('eval', 'multiple-choice', items, '--lora', `y=${adapter}`), { message: /a request has one adapter/ })

  const [requests, results] = [join(dir, 'requests.jsonl'), join(dir, 'results.jsonl')]
  const body = { prompt: 'The king', max_tokens: 6, temperature: 0 }
  const line = (id: string, model: string) => JSON.stringify({ custom_id: id, method: 'POST', url: '/v1/completions', body: { ...body, model } })
  writeFileSync(requests, `${line('plain', 'tiny')}\n${line('adapted', 'x')}\n`)
  const batch = ['batch', requests, results, '--model', `tiny=${TINY}`]
  const { stderr } = await run(...batch)
  t.false(stderr.includes('is not served'), stderr)
  const texts = new Map(
    readFileSync(results, 'utf8')
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as { custom_id: string; response: { body: { choices: { text: string }[] } } })
      .map(({ custom_id, response }) => [custom_id, response.body.choices[0]?.text]),
  )
  t.is(texts.get('adapted'), (await engine.generate('The king', { maxTokens: 6, lora: 'x' })).text)
  t.is(texts.get('plain'), (await engine.generate('The king', { maxTokens: 6 })).text)
  // Gone on: nothing is left to do.
  t.like(JSON.parse((await run(...batch)).stdout), { requests: 2, failed: 0, ran: 0 })
})
