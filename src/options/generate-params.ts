// Parameters of generate() and generateMany(): one entry for each. The API's types, the checks, the flags, the HTTP fields and the documentation
// come from this table (npm run docs:options). The sampler itself runs in the ranks.
import { randomBytes } from 'node:crypto'
import { MAX_BIASES, MAX_LOGPROBS, MAX_MODEL_END_IDS, MAX_SUPPRESSED_IDS } from '../../workers/mailbox/mailbox-layout.js'
import type { GrammarSource } from '../constraints/matcher-messages.js'
import { MAX_PRIORITY } from '../engine/scheduling/priority.js'
import { LORA } from './adapter-entries.js'
import { type Caller, spelled } from './caller.js'
import { checkInteger, invalidOption } from './check.js'
import { CONSTRAINTS } from './constraint-entries.js'
import { automaticFlag, biases, type Checked, flag, ids, instance, int, integers, number, texts } from './entry.js'
import { MAX_TIMER_MS } from './limits.js'
import { checkTable } from './table.js'

const MAX_STOPS = 32
const MAX_STOP_LENGTH = 1000
/** Beside the model's own end ids. */
const MAX_STOP_IDS = MAX_SUPPRESSED_IDS - MAX_MODEL_END_IDS
const MAX_CHOICES = 64

export const GENERATE_PARAMS = {
  maxTokens: int({
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: 256,
    doc: 'largest number of tokens to generate',
    more: 'The context bounds it as well. With 0 the prompt is computed and nothing is generated.',
  }),
  minTokens: int({
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: 0,
    http: true,
    doc: 'smallest number of tokens to generate',
    more: 'Before it, ids that end the text are suppressed and stop strings are not searched for. At most maxTokens.',
  }),
  temperature: number({
    also: 0,
    min: 0.001,
    max: 100,
    default: 0,
    http: true,
    flag: '<t>',
    doc: 'logits are divided by it; 0 is greedy',
    more: "Over HTTP the default is 1, as in OpenAI's API.",
  }),
  topK: int({
    min: 1,
    max: 2 ** 31 - 1,
    default: 0,
    defaultText: 'all',
    http: true,
    unset: [0, -1],
    doc: 'sample among the k most likely tokens',
  }),
  topP: number({
    above: true,
    min: 0,
    max: 1,
    default: 1,
    http: true,
    flag: '<p>',
    doc: 'sample among the most likely tokens whose probabilities add up to this',
    more: 'Applied after topK.',
  }),
  minP: number({
    min: 0,
    max: 1,
    default: 0,
    http: true,
    flag: '<p>',
    doc: "remove tokens less likely than this share of the most likely token's probability",
    more: 'Applied after topP.',
  }),
  typicalP: number({
    above: true,
    min: 0,
    max: 1,
    default: 1,
    http: true,
    flag: '<p>',
    doc: 'sample among the tokens of typical surprise whose probabilities add up to this',
    more: 'Typical: nearest to the expected surprise (the entropy). Applied after minP.',
  }),
  repetitionPenalty: number({
    // Smaller values would take logits out of the range of float32.
    min: 0.01,
    max: 10,
    default: 1,
    http: true,
    doc: 'divides positive logits, and multiplies negative ones, of tokens that occur in the prompt or the output',
  }),
  presencePenalty: number({
    min: -10,
    max: 10,
    default: 0,
    http: true,
    doc: 'subtracted from the logit of each token that occurs in the output',
  }),
  frequencyPenalty: number({
    min: -10,
    max: 10,
    default: 0,
    http: true,
    doc: 'subtracted from the logit of each token as many times as it occurs in the output',
  }),
  logitBias: biases({
    min: -1000,
    max: 1000,
    maxItems: MAX_BIASES,
    http: true,
    doc: 'added to the logits of token ids before anything else',
  }),
  stop: texts({
    what: 'a text',
    maxItems: MAX_STOPS,
    maxLength: MAX_STOP_LENGTH,
    http: true,
    unset: [''],
    doc: 'text that ends the output and is not part of it',
    more: 'It may begin and end within tokens.',
  }),
  stopTokenIds: ids({
    maxItems: MAX_STOP_IDS,
    http: true,
    doc: "token ids that end the output and are not part of it, beside the model's own",
  }),
  logprobs: int({
    min: 0,
    max: MAX_LOGPROBS,
    default: undefined,
    flag: '<k>',
    doc: 'report the log-probability of each token, and of the k most likely ones',
    more: "Natural logarithms of the model's own distribution, before penalties, temperature and filters.",
  }),
  promptLogprobs: int({
    min: 0,
    max: MAX_LOGPROBS,
    default: undefined,
    flag: '<k>',
    http: true,
    doc: 'the same for the tokens of the prompt',
    more: 'The whole prompt is computed for it, whatever is cached.',
  }),
  n: int({
    min: 1,
    max: MAX_CHOICES,
    default: 1,
    http: true,
    doc: 'completions of each prompt',
    more: 'For generateMany only. Each completion has its own random numbers.',
  }),
  seed: int({
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    default: () => randomBytes(6).readUIntBE(0, 6),
    defaultText: 'random, and reported with the completion',
    http: true,
    unset: [-1],
    doc: 'makes sampling repeatable',
    more: 'Equal seeds give equal tokens whatever else the engine runs.',
  }),
  ignoreEos: flag({ http: true, doc: 'continue past the end-of-text token' }),
  skipSpecialTokens: automaticFlag({
    automatic: 'true',
    http: true,
    doc: 'leave special tokens out of the text',
    more: 'Those that end the output are never part of it.',
  }),
  bos: automaticFlag({
    automatic: 'as the tokenizer says, for a text prompt',
    doc: 'put the token that begins a document before the prompt, once',
    more: 'The published MLRA models saw <|endoftext|> before every document, and their tokenizer does not say so.',
  }),
  lora: LORA,
  ...CONSTRAINTS,
  speculate: integers({
    parts: { ngram: { min: 1, max: 16 }, maxTokens: { min: 1, max: 64 } },
    example: { ngram: 3, maxTokens: 8 },
    doc: 'guess tokens ahead from what followed the last ngram tokens when they occurred before',
    more: 'At most maxTokens tokens per step. The output is the same, in fewer steps where text repeats itself.',
  }),
  priority: int({
    min: 0,
    max: MAX_PRIORITY,
    default: 0,
    http: true,
    doc: 'each unit moves the request 64 places ahead in the queue',
  }),
  timeoutMs: int({
    min: 1,
    max: MAX_TIMER_MS,
    default: undefined,
    flag: '<ms>',
    doc: 'longest time in ms from the call to the end; then it rejects with TIMEOUT',
  }),
  queueTimeoutMs: int({
    min: 1,
    max: MAX_TIMER_MS,
    default: undefined,
    flag: '<ms>',
    doc: 'longest time in ms from the call to the start of the request; then it rejects with TIMEOUT',
  }),
  signal: instance<AbortSignal>({
    type: 'AbortSignal',
    is: (value): value is AbortSignal => value instanceof AbortSignal,
    expected: 'an AbortSignal',
    doc: "ends the request; it resolves with finishReason 'abort'",
  }),
} as const

/** Checked parameters with their defaults. topK 0: all tokens. */
export type ResolvedGenerateParams = Checked<typeof GENERATE_PARAMS>

/**
 * `vocab`: size of the vocabulary, for token ids; unknown before the model is loaded.
 * Throws OptionError OPTION_UNKNOWN or OPTION_INVALID, in the caller's spelling.
 */
export function checkParams(params: unknown, vocab?: number, caller: Caller = 'api', call = 'generate'): ResolvedGenerateParams {
  const checked = checkTable(GENERATE_PARAMS, call, params, caller, vocab)
  checkInteger(spelled('minTokens', caller), checked.minTokens, 0, checked.maxTokens, invalidOption)
  checkConstraints(checked, caller)
  return checked
}

/** What an output is held to, if it is. */
export function constraintOf(params: ResolvedGenerateParams): GrammarSource | undefined {
  return CONSTRAINT_NAMES.map((name) => params[name]).find((source) => source !== undefined)
}

const CONSTRAINT_NAMES = Object.keys(CONSTRAINTS) as (keyof typeof CONSTRAINTS)[]

function checkConstraints(params: ResolvedGenerateParams, caller: Caller): void {
  const given = CONSTRAINT_NAMES.filter((name) => params[name] !== undefined)
  const [first, second] = given
  if (first === undefined) return
  const exclusive = second ?? (params.minTokens > 0 ? 'minTokens' : params.ignoreEos ? 'ignoreEos' : undefined)
  if (exclusive === undefined) return
  const [a, b] = [spelled(first, caller), spelled(exclusive, caller)]
  throw invalidOption({
    what: `${a} and ${b} exclude each other`,
    expected: second ? `one of ${CONSTRAINT_NAMES.map((name) => spelled(name, caller)).join(', ')}` : `${a} alone, which says where the output ends`,
    actual: 'both',
    remedy: `Omit ${b}.`,
    option: b,
  })
}
