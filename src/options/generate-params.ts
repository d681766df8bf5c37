// Parameters of generate(), checked once. The sampler itself runs in the ranks.
import { randomBytes } from 'node:crypto'
import { MAX_BIASES, MAX_LOGPROBS } from '../../workers/mailbox/mailbox-layout.js'
import type { Speculation } from '../engine/scheduling/ngram-drafts.js'
import { MAX_PRIORITY } from '../engine/scheduling/priority.js'
import { OptionError } from '../errors.js'
import { checkBoolean, checkInteger, checkNames, type Fail, show } from './check.js'
import { checkInstance } from './engine-options.js'

/** What engine.generate takes beside the prompt. */
export interface GenerateParams {
  /** Most tokens to generate, 1 or more. Default 256; what fits the context bounds it. */
  maxTokens?: number
  /** Fewest tokens: ids that end the text are barred before, and stop strings not looked for. Default 0. */
  minTokens?: number
  /** 0 (default) is greedy; else from 0.001 to 100. Logits are divided by it. */
  temperature?: number
  /** Sample among the k most likely tokens, 1 or more. Default: all. */
  topK?: number
  /** Sample among the most likely tokens whose probabilities together just reach this, above 0 to 1 (default, all). After topK. */
  topP?: number
  /** Leave out tokens less likely than this share of the most likely one's probability, 0 (default) to 1. After topP. */
  minP?: number
  /** Sample among the tokens whose surprise is nearest to the expected one and whose probabilities together just reach this, above 0 to 1 (default, all). After minP. */
  typicalP?: number
  /** Divides positive logits, and multiplies negative ones, of tokens that the prompt or the output has; 0.01 to 10. Default 1. */
  repetitionPenalty?: number
  /** Taken from the logit of each token that the output has, -10 to 10. Default 0. */
  presencePenalty?: number
  /** Taken from the logit of each token once for every time that the output has it, -10 to 10. Default 0. */
  frequencyPenalty?: number
  /** Added to the logits of token ids before anything else, -1000 to 1000; 1024 entries at most. */
  logitBias?: Readonly<Record<number, number>>
  /** Texts that end the output and are not part of it, at most 32 of 1000 characters. They may begin and end within tokens. */
  stop?: string | readonly string[]
  /** Token ids that end the output and are not part of it, beside the model's own; 32 at most. */
  stopTokenIds?: readonly number[]
  /** Report the logarithm of each token's probability, and those of so many most likely ones, 0 to 20: of the model's own distribution. Default: none. */
  logprobs?: number
  /** The same for the tokens of the prompt, which is computed anew for it. Default: none. */
  promptLogprobs?: number
  /** Makes sampling repeatable: an integer from 0 to 2^53 - 1. Default: drawn at admission and reported. */
  seed?: number
  /** Go on past the end-of-text token. Default false. */
  ignoreEos?: boolean
  /** Put `<|endoftext|>` before the prompt, as every document of the published models' training had it. Default false. */
  bos?: boolean
  /**
   * Guess tokens ahead from what followed the last `ngram` tokens (1..16) when they occurred before, up to `maxTokens` (1..64)
   * a step: the same output in fewer steps where text repeats itself. Default: none.
   */
  speculate?: { ngram: number; maxTokens: number }
  /** An integer from 0 (default) to 10: each step moves the request 64 places ahead in the queue. */
  priority?: number
  /** Most milliseconds from the call to the end; then it rejects with TIMEOUT. Default: none. */
  timeoutMs?: number
  /** Most milliseconds in the queue. Default: none. */
  queueTimeoutMs?: number
  /** Ends the request; it resolves with finishReason 'abort'. */
  signal?: AbortSignal
}

/** The same, for several completions of each prompt. */
export interface ManyParams extends GenerateParams {
  /** Completions of each prompt, 1 to 64, each with random numbers of its own; the result is an array. */
  n: number
}

export interface SamplingParams {
  readonly maxTokens: number
  readonly minTokens: number
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly typicalP: number
  readonly repetitionPenalty: number
  readonly presencePenalty: number
  readonly frequencyPenalty: number
  readonly logitBias: readonly (readonly [id: number, bias: number])[]
  readonly stop: readonly string[]
  readonly stopTokenIds: readonly number[]
  readonly n: number | undefined
  readonly logprobs: number | undefined
  readonly promptLogprobs: number | undefined
  readonly seed: number
  readonly ignoreEos: boolean
  readonly bos: boolean
  readonly speculate: Speculation | undefined
  readonly priority: number
  readonly timeoutMs: number | undefined
  readonly queueTimeoutMs: number | undefined
  readonly signal: AbortSignal | undefined
}

const NAMES = [
  'maxTokens',
  'minTokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'typicalP',
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
  'logitBias',
  'stop',
  'stopTokenIds',
  'n',
  'logprobs',
  'promptLogprobs',
  'seed',
  'ignoreEos',
  'bos',
  'speculate',
  'priority',
  'timeoutMs',
  'queueTimeoutMs',
  'signal',
]

const MOST_STOPS = 32
const LONGEST_STOP = 1000
const MOST_STOP_IDS = 32
const MOST_CHOICES = 64

const fail: Fail = (facts) => new OptionError('OPTION_INVALID', facts)

/** Throws OptionError OPTION_UNKNOWN or OPTION_INVALID. */
/** vocab: for ids. */
export function resolveParams(params: GenerateParams | ManyParams, vocab: number): SamplingParams {
  const p = checkNames('generate', params, NAMES)
  const temperature = p.temperature ?? 0
  if (typeof temperature !== 'number' || !(temperature === 0 || (temperature >= 1e-3 && temperature <= 100))) {
    throw fail({
      what: 'temperature is out of range',
      expected: '0, or a number from 0.001 to 100',
      actual: show(temperature),
      remedy: 'Give temperature such a value.',
    })
  }
  const maxTokens = checkInteger('maxTokens', p.maxTokens ?? 256, 1, Number.MAX_SAFE_INTEGER, fail)
  const optional = (name: string, value: unknown, min: number, max: number) =>
    value === undefined ? undefined : checkInteger(name, value, min, max, fail)
  return Object.freeze({
    maxTokens,
    minTokens: checkInteger('minTokens', p.minTokens ?? 0, 0, maxTokens, fail),
    temperature,
    topK: optional('topK', p.topK, 1, 2 ** 31 - 1) ?? 0,
    topP: between('topP', p.topP ?? 1, 0, 1, true),
    minP: between('minP', p.minP ?? 0, 0, 1),
    typicalP: between('typicalP', p.typicalP ?? 1, 0, 1, true),
    // Smaller ones would take logits out of the range of float32.
    repetitionPenalty: between('repetitionPenalty', p.repetitionPenalty ?? 1, 0.01, 10),
    presencePenalty: between('presencePenalty', p.presencePenalty ?? 0, -10, 10),
    frequencyPenalty: between('frequencyPenalty', p.frequencyPenalty ?? 0, -10, 10),
    logitBias: biases(p.logitBias ?? {}, vocab),
    stop: stops(p.stop ?? []),
    stopTokenIds: tokenIds(p.stopTokenIds ?? [], vocab),
    n: optional('n', p.n, 1, MOST_CHOICES),
    logprobs: optional('logprobs', p.logprobs, 0, MAX_LOGPROBS),
    promptLogprobs: optional('promptLogprobs', p.promptLogprobs, 0, MAX_LOGPROBS),
    seed: checkInteger('seed', p.seed ?? randomBytes(6).readUIntBE(0, 6), 0, Number.MAX_SAFE_INTEGER, fail),
    ignoreEos: checkBoolean('ignoreEos', p.ignoreEos, fail),
    bos: checkBoolean('bos', p.bos, fail),
    speculate: p.speculate === undefined ? undefined : speculation(p.speculate),
    priority: checkInteger('priority', p.priority ?? 0, 0, MAX_PRIORITY, fail),
    timeoutMs: timeout('timeoutMs', p.timeoutMs),
    queueTimeoutMs: timeout('queueTimeoutMs', p.queueTimeoutMs),
    signal: checkInstance('signal', p.signal, (v): v is AbortSignal => v instanceof AbortSignal, 'an AbortSignal'),
  })
}

/** A number in [min, max], or (min, max]. */
function between(name: string, value: unknown, min: number, max: number, above = false): number {
  if (typeof value === 'number' && (above ? value > min : value >= min) && value <= max) return value
  throw fail({
    what: `${name} is out of range`,
    expected: `a number ${above ? 'above' : 'from'} ${min} to ${max}`,
    actual: show(value),
    remedy: `Give ${name} such a value.`,
  })
}

function biases(value: unknown, vocab: number): readonly (readonly [number, number])[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw fail({ what: 'logitBias is of the wrong type', expected: 'an object of token ids', actual: show(value), remedy: 'Pass { id: bias }.' })
  }
  const entries = Object.entries(value)
  if (entries.length > MAX_BIASES) {
    throw fail({
      what: 'logitBias is too long',
      expected: `at most ${MAX_BIASES} entries`,
      actual: String(entries.length),
      remedy: 'Leave some out.',
    })
  }
  return entries.map(([id, bias]) => [
    checkInteger('an id of logitBias', id === '' ? Number.NaN : Number(id), 0, vocab - 1, fail),
    between('a value of logitBias', bias, -1000, 1000),
  ])
}

function stops(value: unknown): readonly string[] {
  const list: unknown = typeof value === 'string' ? [value] : value
  const valid = (stop: unknown) => typeof stop === 'string' && stop.length > 0 && stop.length <= LONGEST_STOP
  if (Array.isArray(list) && list.length <= MOST_STOPS && list.every(valid)) return Object.freeze([...(list as string[])])
  throw fail({
    what: 'stop is not supported like this',
    expected: `a text of 1 to ${LONGEST_STOP} characters, or at most ${MOST_STOPS} of them`,
    actual: show(value),
    remedy: 'Pass such texts.',
  })
}

function tokenIds(value: unknown, vocab: number): readonly number[] {
  if (!Array.isArray(value) || value.length > MOST_STOP_IDS) {
    throw fail({
      what: 'stopTokenIds is not supported like this',
      expected: `an array of at most ${MOST_STOP_IDS} ids`,
      actual: show(value),
      remedy: 'Pass such an array.',
    })
  }
  return Object.freeze(value.map((id) => checkInteger('an id of stopTokenIds', id, 0, vocab - 1, fail)))
}

function speculation(value: unknown): Speculation {
  const s = checkNames('speculate', value, ['ngram', 'maxTokens'])
  return Object.freeze({
    ngram: checkInteger('speculate.ngram', s.ngram, 1, 16, fail),
    maxTokens: checkInteger('speculate.maxTokens', s.maxTokens, 1, 64, fail),
  })
}

function timeout(name: string, value: unknown): number | undefined {
  return value === undefined ? undefined : checkInteger(name, value, 1, 2 ** 31 - 1, fail)
}
