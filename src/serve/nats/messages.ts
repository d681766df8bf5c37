// Messages between frontends and the replicas of a NATS cluster, and their subjects. Everything that arrives is checked against a schema:
// anybody with access to the cluster may have sent it.
import { Ajv, type ValidateFunction } from 'ajv'
import type { IndexedChunk } from '../../engine/engine.js'
import type { EngineInfo, EngineStats } from '../../engine/engine-info.js'
import type { Completion } from '../../engine/generation.js'
import type { Prompt } from '../../engine/prompts.js'
import { RequestError } from '../../errors.js'
import { packMessage, unpackMessage } from '../../message-pack.js'
import type { GenerateManyParams } from '../../options/public-types.js'
import type { TemplateSource } from '../../tokenizer/chat-template.js'
import type { MarkedText } from '../../tokenizer/tokenizer-interface.js'
import type { PackedError } from '../replicas/protocol.js'
import { SCHEMAS } from './message-schemas.js'

/** Name of the NATS service. */
export const SERVICE = 'tetrad'

/** group: of replicas with the same model and determinism key. instance: one replica, by the id of its service. */
export const subjects = {
  /** Taken by any replica of the group. */
  run: (group: string) => `tetrad.run.${group}`,
  runAt: (group: string, instance: string) => `tetrad.run.${group}.${instance}`,
  /** Below run, so that whoever may run requests may do this. Instances have longer names. */
  tokenize: (group: string) => `tetrad.run.${group}.tokenize`,
  describe: (group: string) => `tetrad.describe.${group}`,
  control: (instance: string) => `tetrad.control.${instance}`,
}

/** Asks a replica for completions, which arrive as frames at `inbox`. */
export interface RunRequest {
  readonly id: string
  readonly inbox: string
  readonly prompts: readonly Prompt[]
  readonly params: GenerateManyParams
}

/** The answer to RunRequest: the replica that control messages go to. */
export interface Accepted {
  readonly instance: string
}

/** A completion without what its chunks contained. */
export type CompletionEnd = Omit<Completion, 'text' | 'tokens' | 'logprobs'>

export type Frame =
  | { readonly seq: number; readonly type: 'chunk'; readonly chunk: IndexedChunk }
  | { readonly seq: number; readonly type: 'done'; readonly completions: readonly CompletionEnd[] }
  | { readonly seq: number; readonly type: 'error'; readonly error: PackedError }

/**
 * From a frontend to a replica, a few times a second. For each of its requests there: the last frame in order that it has received, and the
 * last that may be sent.
 */
export interface Control {
  readonly requests: readonly (readonly [id: string, received: number, credit: number])[]
  readonly aborts: readonly string[]
}

/** The answer to Control: requests that the replica does not know, or no longer knows. */
export interface Forgotten {
  readonly ids: readonly string[]
}

/** Asks any replica of a group for the ids of a text: frontends have no tokenizer. */
export interface TokenizeRequest {
  readonly text: string | MarkedText
  readonly bos: boolean
}

/** The answer to TokenizeRequest: one of them. */
export interface Tokens {
  readonly ids?: readonly number[]
  readonly error?: PackedError
}

/** Asks for what a frontend must know of a group. from: the first token to describe. */
export interface DescribeRequest {
  readonly from: number
}

/** A token whose bytes are not those of its text: its id, bytes, and how it is written if it is a special token. */
export type PackedPiece = readonly [id: number, bytes: Uint8Array, special: string | null]

export interface Description {
  readonly info: EngineInfo
  readonly template: TemplateSource | null
  /** Texts of the tokens from `from` on. The rest must be asked for again. */
  readonly texts: readonly string[]
  /** Of the same tokens. */
  readonly pieces: readonly PackedPiece[]
}

/** Metadata of the service. */
export interface Metadata {
  readonly protocol: string
  readonly model: string
  readonly group: string
  readonly determinism_key: string
}

/** Statistics of the service's endpoint that runs requests. */
export interface Load {
  readonly draining: boolean
  readonly stats: EngineStats
}

export interface Messages {
  run: RunRequest
  accepted: Accepted
  frame: Frame
  control: Control
  forgotten: Forgotten
  tokenize: TokenizeRequest
  tokens: Tokens
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
  ajv.addKeyword({ keyword: 'bytes', schema: false, validate: (value: unknown) => value instanceof Uint8Array })
  const made = ajv.compile(SCHEMAS[kind])
  validators.set(kind, made)
  return made
}

/** Returns the value as its type. Throws RangeError, which says what is wrong with it. */
export function checked<K extends keyof Messages>(kind: K, value: unknown): Messages[K] {
  const validate = validator(kind)
  if (validate(value)) return value as Messages[K]
  const [first] = validate.errors ?? []
  throw new RangeError(`${kind}${first?.instancePath ?? ''} ${first?.message ?? 'is invalid'}`)
}

export function encode<K extends keyof Messages>(_kind: K, message: Messages[K]): Buffer {
  return packMessage(message)
}

/** Throws RangeError, or what msgpackr throws for bytes that are not MessagePack. */
export function decode<K extends keyof Messages>(kind: K, bytes: Uint8Array): Messages[K] {
  return checked(kind, unpackMessage(bytes))
}

export function tooLarge(what: string, bytes: number, max: number): RequestError {
  return new RequestError('MESSAGE_TOO_LARGE', {
    what: `${what} is larger than the NATS server accepts`,
    expected: `at most ${max} bytes`,
    actual: `${bytes} bytes`,
    remedy: 'Raise max_payload of the NATS servers, or send less at once.',
  })
}
