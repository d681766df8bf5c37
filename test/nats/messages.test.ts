// What arrives from a cluster is taken only as what it should be.
import test from 'ava'
import fc from 'fast-check'
import { Engine } from '../../src/index.js'
import { packMessage } from '../../src/message-pack.js'
import { readJob, readResult } from '../../src/serve/nats/job-streams.js'
import { decode, encode, type Messages } from '../../src/serve/nats/messages.js'
import { FIXTURES } from '../support/fixtures.js'

const usage = { promptTokens: 1, completionTokens: 2, cachedTokens: 0 }
const timings = { ttftMs: 1.5, decodeMs: 2, tokensPerSecond: 3 }
const engine = await Engine.load(`${FIXTURES}golden/mlra_4`, { ranks: 2, maxRunning: 2 })
await engine.generate([1, 2, 3], { maxTokens: 2, ignoreEos: true })
// As a replica sends them: what an engine says of itself.
const { info } = engine
const stats = engine.stats()
await engine.close()

const VALID: { readonly [K in keyof Messages]: Messages[K] } = {
  run: { id: 'a-1', inbox: '_INBOX.abc.a-1', prompts: ['Once', [1, 2]], params: { n: 1, maxTokens: 4 } },
  accepted: { instance: 'X1' },
  frame: { seq: 3, type: 'done', completions: [{ finishReason: 'stop', stoppedBy: 'x', usage, timings, seed: 7 }] },
  control: { requests: [['a-1', 2, 66]], aborts: ['b'] },
  forgotten: { ids: ['a-1', 'b'] },
  tokenize: { text: { text: 'Once', mark: 'abcdefgh' }, bos: true },
  tokens: { ids: [1, 2] },
  describe: { from: 0 },
  description: {
    info,
    template: { source: '{{ messages }}', bosToken: '<s>', eosToken: '</s>' },
    texts: ['a', ' b'],
    pieces: [[7, Buffer.of(0xc3), null]],
  },
  metadata: { protocol: '2', model: 'tiny', group: 'abc', determinism_key: 'k' },
  load: { draining: false, stats },
}
const KINDS = Object.keys(VALID) as (keyof Messages)[]

test('every message is decoded as it was encoded', (t) => {
  for (const kind of KINDS) t.deepEqual(decode(kind, encode(kind, VALID[kind] as never)), VALID[kind] as never, kind)
  const chunk = { seq: 1, type: 'chunk', chunk: { index: 0, text: 'é', tokens: [5], logprobs: [{ token: 5, logprob: -1, top: [] }] } } as const
  t.deepEqual(decode('frame', encode('frame', chunk)), chunk)
})

test('a request with an inbox of others, ids that are subjects, too many prompts or choices, or anything more, is refused', (t) => {
  const run = VALID.run as Messages['run']
  for (const wrong of [
    { ...run, inbox: '$JS.API.STREAM.DELETE.TETRAD_JOBS' },
    { ...run, inbox: '_INBOX.>' },
    { ...run, inbox: '_INBOX.a b' },
    { ...run, id: 'a.b' },
    { ...run, id: '' },
    { ...run, prompts: [] },
    { ...run, prompts: Array.from({ length: 257 }, () => 'x') },
    { ...run, prompts: [[-1]] },
    { ...run, prompts: [[0.5]] },
    { ...run, params: {} },
    { ...run, params: { n: 65 } },
    { ...run, more: 1 },
    null,
    7,
    [run],
  ])
    t.throws(() => decode('run', packMessage(wrong as object)), { instanceOf: RangeError }, JSON.stringify(wrong))
})

/** Thrown by msgpackr, or by a constructor that it calls, for bytes that are no MessagePack. */
function isOfMessagePack(error: unknown): boolean {
  const frames = error instanceof Error ? (error.stack?.split('\n    at ').slice(1) ?? []) : []
  return frames.find((frame) => frame.includes('file:'))?.includes('/node_modules/msgpackr/') ?? false
}

test('random bytes and mutated messages throw or decode to a valid message', (t) => {
  const seeds = KINDS.map((kind) => encode(kind, VALID[kind] as never))
  const changed = fc.tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 })).map(([seed, edits]) => {
    const bytes = Buffer.from(seed)
    for (const [at, value] of edits) bytes[at % bytes.length] = value
    return bytes
  })
  let taken = 0
  let refused = 0
  const readers = [
    ...KINDS.map((kind) => (bytes: Uint8Array) => decode(kind, encode(kind, decode(kind, bytes) as never))),
    (bytes: Uint8Array) => readJob(bytes),
    (bytes: Uint8Array) => readResult(bytes),
  ]
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), changed), fc.constantFrom(...readers), (bytes, read) => {
        try {
          read(bytes)
          taken++
        } catch (error) {
          if (!(error instanceof RangeError || isOfMessagePack(error))) throw error
          refused++
        }
      }),
      { numRuns: 5000, seed: 20261126 },
    ),
  )
  t.true(taken > 0 && refused > 0)
})
