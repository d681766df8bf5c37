// Replicas in processes of their own behind a real nats-server, and a front in this one: deaths, restarts and cuts that no client sees.

import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { connect } from '@nats-io/transport-node'
import test from 'ava'
import { ClusterError, Engine, OptionError, RequestError, type TetradError } from '../../src/index.js'
import { decode, encode, type Frame, subjects } from '../../src/serve/nats/messages.js'
import { TINY } from '../support/fixtures.js'
import { temporary } from '../support/models.js'
import { cuttable, natsServer, natsTest, replica } from '../support/nats.js'
import { front, streamsAs } from '../support/nats-front.js'
import { until as untilTrue } from '../support/until.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 8, cacheTokens: 8192 })
test.after.always(() => engine.close())

const stream = streamsAs(engine)

natsTest('two replicas: the engine’s own answers, and streams that go on when one is killed', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  const [one, two] = await Promise.all([replica(t, server.url), replica(t, server.url)])
  t.is(one.group, two.group)
  const { client, until, model, joined } = await front(t, server.url)
  t.is(joined.group('tiny'), one.group)
  const request = { model: 'tiny', prompt: 'Once upon a time', max_tokens: 12, temperature: 0.8, seed: 3, n: 2, logprobs: 2 } as const
  const answer = await client.completions.create(request)
  const own = await engine.generateMany(['Once upon a time'], { maxTokens: 12, temperature: 0.8, seed: 3, n: 2, logprobs: 2 })
  t.deepEqual(
    answer.choices.map(({ text, finish_reason, logprobs }) => ({ text, finish_reason, logprobs: logprobs?.token_logprobs })),
    own.map(({ text, logprobs }) => ({ text, finish_reason: 'length', logprobs: logprobs?.map(({ logprob }) => logprob) })),
  )
  t.is(answer.choices[0]?.logprobs?.tokens?.join(''), answer.choices[0]?.text)
  t.is((answer as unknown as { system_fingerprint: string }).system_fingerprint, `fp_${one.group}`)
  const prompt = await engine.tokenize('Once upon a time')
  const scored = await client.completions.create({ model: 'tiny', prompt, max_tokens: 0, echo: true, logprobs: 1 })
  t.deepEqual(scored.choices[0]?.logprobs?.token_logprobs?.slice(1), (await engine.loglikelihood(prompt.slice(0, 1), prompt.slice(1))).perToken)
  t.deepEqual(await model().tokenize('Once upon a time'), prompt)
  t.deepEqual(await model().tokenize('x', { bos: true }), await engine.tokenize('x', { bos: true }))
  await t.throwsAsync(async () => model().tokenize('word '.repeat(50_000)), { instanceOf: RequestError, code: 'PROMPT_TOO_LONG' })
  const stopped = await client.completions.create({ ...request, n: 1, stop: own[0]?.text.slice(8, 11) as string })
  t.is(stopped.choices[0]?.text, own[0]?.text.slice(0, 8))
  const error = await t.throwsAsync(async () => model().generateMany(['x'], { n: 1, temperature: -1 }), { instanceOf: OptionError })
  t.regex((error as TetradError).remedy, /\S/)
  await stream(t, client, () => void one.child.kill('SIGKILL'))
  await until(new RegExp(`replica ${one.instance} of tiny is gone`))
  const chat = await client.chat.completions.create({ model: 'tiny', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 3 })
  t.is(chat.usage?.completion_tokens, 3)
})

natsTest('running streams survive a restart of the NATS server', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  await Promise.all([replica(t, server.url), replica(t, server.url)])
  const { client, until } = await front(t, server.url)
  await stream(t, client, async () => {
    await server.kill()
    await until(/lost the connection to NATS/)
    await server.start()
  })
  await until(/connected to NATS again/)
})

natsTest('a NATS server that stays away ends requests with NATS_LOST within the deadline; afterwards all is well', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  await replica(t, server.url)
  const { client, model, until } = await front(t, server.url, { deadlineMs: 2000 })
  const long = model().generateMany(['Once'], { n: 1, maxTokens: 900, ignoreEos: true, temperature: 1, seed: 1 })
  const chunks = long[Symbol.asyncIterator]()
  await chunks.next()
  await server.kill()
  const error = await t.throwsAsync(async () => {
    for (;;) if ((await chunks.next()).done) return
  })
  t.true(error instanceof ClusterError)
  t.is((error as ClusterError).code, 'NATS_LOST')
  const late = await t.throwsAsync(async () => model().generateMany(['Once'], { n: 1 }))
  t.is((late as ClusterError).code, 'NATS_LOST')
  await server.start()
  await until(/connected to NATS again/)
  t.is((await client.completions.create({ model: 'tiny', prompt: 'Once', max_tokens: 3 })).usage?.completion_tokens, 3)
})

natsTest('a replica whose link is cut: its requests are replayed on the other', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  const way = await cuttable(t, server.port)
  const [cut] = await Promise.all([replica(t, way.url), replica(t, server.url)])
  const { client, until, log } = await front(t, server.url)
  await stream(t, client, way.cut)
  await until(new RegExp(`replica ${cut.instance} of tiny is gone`))
  way.mend()
  // It is taken back when it is there again.
  const isBack = new RegExp(`replica ${cut.instance} of tiny .* joined`)
  await untilTrue(() => log.filter((line) => isBack.test(line)).length === 2)
  await stream(t, client, () => {})
})

natsTest('a front whose link is cut for a while: its streams go on', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  await replica(t, server.url)
  const way = await cuttable(t, server.port)
  const { client } = await front(t, way.url)
  await stream(t, client, async () => {
    way.cut()
    await setTimeout(2000)
    way.mend()
  })
})

natsTest('a reader that stops pauses its request in the replica, and one that leaves ends it', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  await replica(t, server.url)
  const { model } = await front(t, server.url)
  const slow = model().generateMany(['Once'], { n: 1, maxTokens: 1000, ignoreEos: true, temperature: 1, seed: 1 })
  const chunks = slow[Symbol.asyncIterator]()
  await chunks.next()
  // Statistics come each second: it stands still when five seconds brought nothing new. A busy machine may take a while to get there.
  let after = -1
  for (let before = -2; before !== after; ) {
    before = after
    await setTimeout(5000)
    after = model().stats().generatedTokens
    if (after >= 600) return t.fail(`${after} tokens without a reader`)
  }
  t.true(after > 0)
  t.is(model().stats().running, 1)
  await chunks.return()
  await untilTrue(() => model().stats().running === 0)
})

natsTest('a replica that is told to end lets its requests end, and takes no new ones', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  const [one, two] = await Promise.all([replica(t, server.url), replica(t, server.url)])
  const { client, until } = await front(t, server.url)
  await stream(t, client, async () => {
    one.child.kill('SIGTERM')
    await setTimeout(1000)
    for (let i = 0; i < 4; i++) {
      const { usage } = await client.completions.create({ model: 'tiny', prompt: `Now ${i}`, max_tokens: 2 })
      t.is(usage?.completion_tokens, 2)
    }
  })
  t.is((await one.ended)[0], 0)
  await until(new RegExp(`replica ${one.instance} of tiny is gone`))
  t.is(two.child.exitCode, null)
})

natsTest('another version of a model never answers for the first, and takes over when that has gone', async (t) => {
  t.timeout(400_000)
  const folder = join(temporary(t), 'tiny')
  await cp(TINY, folder, { recursive: true })
  const server = await natsServer(t)
  const old = await replica(t, server.url)
  const { client, until, joined, log } = await front(t, server.url)
  // The same weights in another format are another determinism key, and other bits.
  const young = await replica(t, server.url, '--model', folder, '--weights', 'int8')
  t.not(young.group, old.group)
  await until(new RegExp(`replica ${young.instance} of tiny \\(${young.group}\\) joined`))
  const ask = async () => {
    const answer = await client.completions.create({ model: 'tiny', prompt: 'Once upon a time', max_tokens: 30, temperature: 0 })
    return { text: answer.choices[0]?.text, by: (answer as unknown as { system_fingerprint: string }).system_fingerprint }
  }
  const expected = (await engine.generate('Once upon a time', { maxTokens: 30 })).text
  for (let i = 0; i < 6; i++) t.deepEqual(await ask(), { text: expected, by: `fp_${old.group}` })
  const request = { model: 'tiny', prompt: 'The king', max_tokens: 200, temperature: 0, stream: true } as const
  let text = ''
  for await (const chunk of await client.completions.create({ ...request, ...{ ignore_eos: true } })) {
    // With its first token the request surely runs there.
    if (text === '') old.child.kill('SIGTERM')
    t.is((chunk as unknown as { system_fingerprint: string }).system_fingerprint, `fp_${old.group}`)
    text += chunk.choices[0]?.text ?? ''
  }
  t.is(text, (await engine.generate('The king', { maxTokens: 200, ignoreEos: true })).text)
  await untilTrue(() => joined.group('tiny') === young.group)
  t.is((await ask()).by, `fp_${young.group}`, log.join('\n'))
})

natsTest('any client of the cluster may ask the queue group; malformed requests are refused, and the replica goes on', async (t) => {
  t.timeout(400_000)
  const server = await natsServer(t)
  const { group, instance } = await replica(t, server.url)
  const nc = await connect({ servers: server.url.replace('nats://', '') })
  t.teardown(() => nc.close())
  const refused = async (subject: string, bytes: Uint8Array) => (await nc.request(subject, bytes)).headers?.get('Nats-Service-Error-Code')
  const params = { n: 1, maxTokens: 5 }
  for (const subject of [subjects.run(group), subjects.runAt(group, instance), subjects.describe(group)]) {
    t.is(await refused(subject, Buffer.from('hello')), '400')
    t.is(await refused(subject, new Uint8Array()), '400')
  }
  t.is(await refused(subjects.run(group), encode('run', { id: 'a', inbox: 'tetrad.control.x', prompts: ['x'], params })), '400')
  nc.publish(subjects.control(instance), Buffer.from([0xc1, 0xff]))
  const inbox = '_INBOX.mine.a'
  const frames: Frame[] = []
  const done = new Promise<void>((resolve) => {
    nc.subscribe(inbox, {
      callback: (_, { data }) => {
        const frame = decode('frame', data)
        frames.push(frame)
        if (frame.type !== 'chunk') resolve()
      },
    })
  })
  const accepted = await nc.request(subjects.run(group), encode('run', { id: 'a', inbox, prompts: ['Once upon a time'], params }))
  t.is(decode('accepted', accepted.data).instance, instance)
  await done
  const text = frames.map((frame) => (frame.type === 'chunk' ? frame.chunk.text : '')).join('')
  t.is(text, (await engine.generate('Once upon a time', { maxTokens: 5 })).text)
  t.deepEqual(
    frames.map(({ seq }) => seq),
    frames.map((_, i) => i + 1),
  )
})

natsTest('a request larger than the server’s messages is refused by its size, and the next one runs', async (t) => {
  t.timeout(120_000)
  const server = await natsServer(t)
  await replica(t, server.url)
  const { model } = await front(t, server.url)
  const error = await t.throwsAsync(async () => model().generateMany(['x'.repeat(2 << 20)], { n: 1 }))
  t.true(error instanceof RequestError)
  t.is((error as RequestError).code, 'MESSAGE_TOO_LARGE')
  t.is((await model().generateMany(['Once'], { n: 1, maxTokens: 2 }))[0]?.tokens.length, 2)
})
