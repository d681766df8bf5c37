// What a front and the replicas of a NATS cluster say to each other, and the subjects where. Everything that arrives is checked against a
// schema: anybody with access to the cluster may have sent it.
import { Ajv, type JSONSchemaType, type Schema, type ValidateFunction } from 'ajv'
import type { IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { RequestError } from '../../errors.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import type { TemplateSource } from '../../tokenizer/chat-template.js'
import { packMessage, unpackMessage } from '../replicas/message-pack.js'
import type { PackedError } from '../replicas/protocol.js'

/** Name of the NATS service. */
export const SERVICE = 'tetrad'
/** Replicas of another protocol are left alone. */
export const PROTOCOL = '1'

/** group: of replicas with the same model and determinism key; instance: one replica, by the id of its service. */
export const subjects = {
  /** Taken by any replica of the group. */
  run: (group: string) => `tetrad.run.${group}`,
  runAt: (group: string, instance: string) => `tetrad.run.${group}.${instance}`,
  describe: (group: string) => `tetrad.describe.${group}`,
  control: (instance: string) => `tetrad.control.${instance}`,
}

/** Asks a replica for completions, which come as frames to `inbox`. */
export interface RunRequest {
  readonly id: string
  readonly inbox: string
  readonly prompts: readonly Prompt[]
  readonly params: GenerateManyParams
}

/** The answer to it: where control messages go to. */
export interface Accepted {
  readonly instance: string
}

/** A completion without what its chunks had. */
export type CompletionEnd = Omit<Completion, 'text' | 'tokens' | 'logprobs'>

export type Frame =
  | { readonly seq: number; readonly type: 'chunk'; readonly chunk: IndexedChunk }
  | { readonly seq: number; readonly type: 'done'; readonly completions: readonly CompletionEnd[] }
  | { readonly seq: number; readonly type: 'error'; readonly error: PackedError }

/** From a front, a few times a second: for each of its requests at a replica the last frame that it has, and the last that may be sent. */
export interface Control {
  readonly requests: readonly (readonly [id: string, received: number, credit: number])[]
  readonly aborts: readonly string[]
}

/** The answer to a control message: requests that the replica does not have, or has no more. */
export interface Forgotten {
  readonly ids: readonly string[]
}

/** Asks for what a front must know of a group; `from`: token whose text comes first. */
export interface DescribeRequest {
  readonly from: number
}

export interface Description {
  readonly info: EngineInfo
  readonly template: TemplateSource | null
  /** Texts of the tokens from `from` on; the rest are asked for again. */
  readonly texts: readonly string[]
}

/** In a service's metadata. */
export interface Metadata {
  readonly protocol: string
  readonly model: string
  readonly group: string
  readonly determinism_key: string
}

/** In a service's statistics, of the endpoint that runs requests. */
export interface Load {
  readonly draining: boolean
  readonly stats: EngineStats
}

/** A model in a cluster has such a name. */
export const MODEL_NAME = '^[\\w.-]{1,200}$'
const MOST_PROMPTS = 256
const count = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER }
const id = { type: 'string', pattern: '^[\\w-]{1,64}$' }
const token = { type: 'integer', minimum: 0 }
const number = { type: 'number' }
const text = { type: 'string' }

/** An object with exactly these properties, of which those named may lack. */
function object(properties: Record<string, object>, optional: readonly string[] = []): object {
  const required = Object.keys(properties).filter((name) => !optional.includes(name))
  return { type: 'object', properties, required, additionalProperties: false }
}

const list = (items: object, most?: number) => ({ type: 'array', items, ...(most !== undefined && { maxItems: most }) })
const logprob = object({ token, logprob: number, top: list(object({ token, logprob: number }), 20) })
const error = object(
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
const completionEnd = object(
  {
    finishReason: { enum: ['length', 'stop', 'abort'] },
    stoppedBy: { type: ['string', 'integer'] },
    promptLogprobs: list({ anyOf: [logprob, { type: 'null' }] }),
    usage: object({ promptTokens: count, completionTokens: count, cachedTokens: count, draftedTokens: count, acceptedTokens: count }, [
      'draftedTokens',
      'acceptedTokens',
    ]),
    timings: object({ ttftMs: number, decodeMs: number, tokensPerSecond: number }),
    seed: count,
  },
  ['stoppedBy', 'promptLogprobs'],
)
const chunk = object({ index: count, text, tokens: list(token), logprobs: list(logprob) }, ['logprobs'])

const histogram = object({ boundsMs: list(number), counts: list(count), count, sumMs: number })
const rank = object({
  shardedWeightBytes: number,
  replicatedWeightBytes: number,
  cacheBytes: number,
  steps: number,
  stepMs: number,
  waitMs: { type: 'object', additionalProperties: number },
  computeMs: { type: 'object', additionalProperties: number },
})
const stats = object({
  queued: count,
  running: count,
  finished: count,
  promptTokens: count,
  cachedTokens: count,
  generatedTokens: count,
  tokensPerSecond: number,
  ttft: histogram,
  timePerToken: histogram,
  requestTime: histogram,
  scheduling: histogram,
  pages: object({ all: count, inUse: count, cached: count }),
  preemptions: count,
  restarts: count,
  ranks: list(rank, 256),
})
const info = {
  type: 'object',
  properties: {
    variant: text,
    ranks: count,
    backend: text,
    contextTokens: count,
    cacheTokens: count,
    vocab: { type: 'integer', minimum: 1, maximum: 2 ** 24 },
    hasTokenizer: { type: 'boolean' },
    determinismKey: text,
  },
  required: ['variant', 'ranks', 'backend', 'contextTokens', 'cacheTokens', 'vocab', 'hasTokenizer', 'determinismKey'],
}

const SCHEMAS = {
  run: object({
    id,
    // Nobody makes a replica write to a subject that others read.
    inbox: { type: 'string', pattern: '^_INBOX\\.[\\w.-]{1,200}$' },
    prompts: { type: 'array', minItems: 1, maxItems: MOST_PROMPTS, items: { anyOf: [text, { type: 'array', items: token }] } },
    // The engine checks names and values.
    params: { type: 'object', properties: { n: { type: 'integer', minimum: 1, maximum: 64 } }, required: ['n'] },
  }),
  accepted: object({ instance: id }),
  frame: {
    type: 'object',
    required: ['type'],
    discriminator: { propertyName: 'type' },
    oneOf: [
      object({ seq: count, type: { const: 'chunk' }, chunk }),
      object({ seq: count, type: { const: 'done' }, completions: list(completionEnd, MOST_PROMPTS * 64) }),
      object({ seq: count, type: { const: 'error' }, error }),
    ],
  },
  control: object({
    requests: list({ type: 'array', items: [id, count, count], minItems: 3, maxItems: 3 }, 65_536),
    aborts: list(id, 65_536),
  }),
  forgotten: object({ ids: list(id, 65_536) }),
  describe: object({ from: token }),
  description: object({
    info,
    template: { anyOf: [{ type: 'null' }, object({ source: text, bosToken: text, eosToken: text })] },
    texts: list(text),
  }),
  metadata: {
    type: 'object',
    properties: { protocol: { const: PROTOCOL }, model: { type: 'string', pattern: MODEL_NAME }, group: id, determinism_key: text },
    required: ['protocol', 'model', 'group', 'determinism_key'],
  },
  load: object({ draining: { type: 'boolean' }, stats }),
} as const

export interface Messages {
  run: RunRequest
  accepted: Accepted
  frame: Frame
  control: Control
  forgotten: Forgotten
  describe: DescribeRequest
  description: Description
  metadata: Metadata
  load: Load
}

const validators = new Map<string, ValidateFunction>()

function validator(kind: keyof Messages): ValidateFunction {
  const known = validators.get(kind)
  if (known) return known
  const ajv = new Ajv({ discriminator: true, strictTuples: false, allowUnionTypes: true, strictTypes: false })
  const made = ajv.compile(SCHEMAS[kind] as Schema | JSONSchemaType<unknown>)
  validators.set(kind, made)
  return made
}

/** The value as what it should be. Throws RangeError, which says what is wrong with it. */
export function checked<K extends keyof Messages>(kind: K, value: unknown): Messages[K] {
  const validate = validator(kind)
  if (validate(value)) return value as Messages[K]
  const [first] = validate.errors ?? []
  throw new RangeError(`${kind}${first?.instancePath ?? ''} ${first?.message ?? 'is wrong'}`)
}

export function encode<K extends keyof Messages>(_kind: K, message: Messages[K]): Buffer {
  return packMessage(message)
}

/** Throws RangeError and what MessagePack throws. */
export function decode<K extends keyof Messages>(kind: K, bytes: Uint8Array): Messages[K] {
  return checked(kind, unpackMessage(bytes))
}

export function tooLarge(what: string, bytes: number, most: number): RequestError {
  return new RequestError('MESSAGE_TOO_LARGE', {
    what: `${what} is larger than the NATS server takes`,
    expected: `${most} bytes at most`,
    actual: `${bytes} bytes`,
    remedy: 'Raise max_payload of the NATS servers, or ask for less at once.',
  })
}
