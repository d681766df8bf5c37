// JSON schemas of the messages in a NATS cluster. A property that a type gains and a schema lacks is a compile error. Messages of requests have
// exactly their properties; statistics and descriptions may have more, so that a newer replica can say more.
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion, Timings, TokenLogprobs, Usage } from '../../engine/generation.js'
import type { RankCounters } from '../../engine/ranks/mailbox.js'
import type { HistogramData } from '../../engine/ranks/statistics.js'
import type { TemplateSource } from '../../tokenizer/chat-template.js'
import type { MarkedText } from '../../tokenizer/tokenizer-interface.js'
import type { PackedError } from '../replicas/protocol.js'
import type {
  Accepted,
  CompletionEnd,
  Control,
  DescribeRequest,
  Description,
  Forgotten,
  Load,
  Messages,
  Metadata,
  RunRequest,
  TokenizeRequest,
  Tokens,
} from './messages.js'

/** Replicas of another protocol are ignored. */
export const PROTOCOL = '2'
/** Names that a model may have in a cluster: like those of repositories, with slashes. */
export const MODEL_NAME = '^(?=.{1,200}$)[\\w.-]+(/[\\w.-]+)*$'
const MAX_PROMPTS = 256
const MAX_CHOICES = 64

type Schema = Readonly<Record<string, unknown>>
/** Names of properties that may be absent. */
type Optional<T> = { [K in keyof T]-?: undefined extends T[K] ? K : never }[keyof T]

const count = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER }
const id = { type: 'string', pattern: '^[\\w-]{1,64}$' }
const token = { type: 'integer', minimum: 0 }
const number = { type: 'number' }
const text = { type: 'string' }
const bytes = { bytes: true }

/** An object with the properties of T. */
function objectOf<T>(properties: { [K in keyof T]-?: Schema }, optional: readonly Optional<T>[] = [], more = false): Schema {
  const required = Object.keys(properties).filter((name) => !optional.some((other) => other === name))
  return { type: 'object', properties, required, ...(more ? {} : { additionalProperties: false }) }
}

/** The same, with properties beyond those of T allowed. */
function openObjectOf<T>(properties: { [K in keyof T]-?: Schema }, optional: readonly Optional<T>[] = []): Schema {
  return objectOf<T>(properties, optional, true)
}

const list = (items: Schema, max?: number): Schema => ({ type: 'array', items, ...(max !== undefined && { maxItems: max }) })
const tuple = (...items: readonly Schema[]): Schema => ({ type: 'array', items, minItems: items.length, maxItems: items.length })

const logprob = objectOf<TokenLogprobs>(
  { token, logprob: number, top: list(objectOf<TokenLogprobs['top'][number]>({ token, logprob: number }), 20), allowed: count },
  ['allowed'],
)

const error = objectOf<PackedError>(
  {
    name: text,
    code: text,
    what: text,
    expected: text,
    actual: text,
    remedy: text,
    retryAfterMs: { type: 'number', minimum: 0, maximum: 3.6e6 },
  },
  ['code', 'expected', 'actual', 'retryAfterMs'],
)

const completionEnd = objectOf<CompletionEnd>(
  {
    finishReason: { enum: ['length', 'stop', 'abort'] satisfies Completion['finishReason'][] },
    stoppedBy: { type: ['string', 'integer'] },
    promptTokens: list(token),
    promptLogprobs: list({ anyOf: [logprob, { type: 'null' }] }),
    usage: objectOf<Usage>({ promptTokens: count, completionTokens: count, cachedTokens: count, draftedTokens: count, acceptedTokens: count }, [
      'draftedTokens',
      'acceptedTokens',
    ]),
    timings: objectOf<Timings>({ ttftMs: number, decodeMs: number, tokensPerSecond: number }),
    seed: count,
  },
  ['stoppedBy', 'promptTokens', 'promptLogprobs'],
)

const chunk = {
  type: 'object',
  properties: { index: count, text, tokens: list(token), logprobs: list(logprob) },
  required: ['index', 'text', 'tokens'],
  additionalProperties: false,
}

const histogram = openObjectOf<HistogramData>({ boundsMs: list(number), counts: list(count), count, sumMs: number })
const rank = openObjectOf<RankCounters>({
  shardedWeightBytes: number,
  replicatedWeightBytes: number,
  cacheBytes: number,
  steps: number,
  stepMs: number,
  waitMs: { type: 'object', additionalProperties: number },
  computeMs: { type: 'object', additionalProperties: number },
})

const stats = openObjectOf<EngineStats>(
  {
    queued: count,
    running: count,
    finished: count,
    promptTokens: count,
    cachedTokens: count,
    generatedTokens: count,
    draftedTokens: count,
    acceptedTokens: count,
    tokensPerSecond: number,
    ttft: histogram,
    timePerToken: histogram,
    requestTime: histogram,
    scheduling: histogram,
    pages: openObjectOf<EngineStats['pages']>({ all: count, inUse: count, cached: count }),
    preemptions: count,
    restarts: count,
    ranks: list(rank, 256),
    draft: openObjectOf<NonNullable<EngineStats['draft']>>({ restarts: count, failed: { type: 'boolean' } }),
  },
  ['draft'],
)

/** What a frontend uses of EngineInfo. */
type UsedInfo = Pick<
  EngineInfo,
  | 'variant'
  | 'ranks'
  | 'backend'
  | 'contextTokens'
  | 'cacheTokens'
  | 'vocab'
  | 'hasTokenizer'
  | 'endIds'
  | 'bosId'
  | 'addsBos'
  | 'determinismKey'
  | 'determinismDigest'
>

const usedInfo: { [K in keyof UsedInfo]-?: Schema } = {
  variant: text,
  ranks: count,
  backend: text,
  contextTokens: count,
  cacheTokens: count,
  vocab: { type: 'integer', minimum: 1, maximum: 2 ** 24 },
  hasTokenizer: { type: 'boolean' },
  endIds: list(token, 64),
  bosId: token,
  addsBos: { type: 'boolean' },
  determinismKey: text,
  determinismDigest: text,
}

const info = openObjectOf<UsedInfo>(usedInfo, ['bosId'])

const marked = objectOf<MarkedText>({ text, mark: { type: 'string', minLength: 8, maxLength: 100 } })

export const SCHEMAS: Readonly<Record<keyof Messages, Schema>> = {
  run: objectOf<RunRequest>({
    id,
    // Nobody can make a replica write to a subject that others read.
    inbox: { type: 'string', pattern: '^_INBOX\\.[\\w.-]{1,200}$' },
    prompts: {
      type: 'array',
      minItems: 1,
      maxItems: MAX_PROMPTS,
      items: { anyOf: [text, list(token), marked] },
    },
    // The engine checks names and values.
    params: { type: 'object', properties: { n: { type: 'integer', minimum: 1, maximum: MAX_CHOICES } }, required: ['n'] },
  }),
  accepted: objectOf<Accepted>({ instance: id }),
  frame: {
    type: 'object',
    required: ['type'],
    discriminator: { propertyName: 'type' },
    oneOf: [
      objectOf<{ seq: number; type: string; chunk: unknown }>({ seq: count, type: { const: 'chunk' }, chunk }),
      objectOf<{ seq: number; type: string; completions: unknown }>({
        seq: count,
        type: { const: 'done' },
        completions: list(completionEnd, MAX_PROMPTS * MAX_CHOICES),
      }),
      objectOf<{ seq: number; type: string; error: unknown }>({ seq: count, type: { const: 'error' }, error }),
    ],
  },
  control: objectOf<Control>({ requests: list(tuple(id, count, count), 65_536), aborts: list(id, 65_536) }),
  forgotten: objectOf<Forgotten>({ ids: list(id, 65_536) }),
  tokenize: objectOf<TokenizeRequest>({ text: { anyOf: [text, marked] }, bos: { type: 'boolean' } }),
  tokens: objectOf<Tokens>({ ids: list(token), error }, ['ids', 'error']),
  describe: objectOf<DescribeRequest>({ from: token }),
  description: openObjectOf<Description>({
    info,
    template: {
      anyOf: [
        { type: 'null' },
        openObjectOf<TemplateSource>({ source: text, bosToken: text, eosToken: text, controlTokens: list(text) }, ['controlTokens']),
      ],
    },
    texts: list(text),
    pieces: list(tuple(token, bytes, { type: ['string', 'null'] })),
  }),
  metadata: openObjectOf<Metadata>({
    protocol: { const: PROTOCOL },
    model: { type: 'string', pattern: MODEL_NAME },
    group: id,
    determinism_key: text,
  }),
  load: openObjectOf<Load>({ draining: { type: 'boolean' }, stats }),
}
