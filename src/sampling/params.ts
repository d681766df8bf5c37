// Parameters of generate(), checked once. The sampler itself runs in the ranks.
import { randomBytes } from 'node:crypto'
import { checkBoolean, checkInteger, checkNames, type Fail, show } from '../config/check.js'
import { checkInstance } from '../config/engine-options.js'
import type { Speculation } from '../engine/ngram-drafts.js'
import { MOST_PRIORITY } from '../engine/scheduler.js'
import { OptionError } from '../errors.js'

/** What engine.generate takes beside the prompt. */
export interface GenerateParams {
  /** Most tokens to generate, 1 or more. Default 256; what fits the context bounds it. */
  maxTokens?: number
  /** 0 (default) is greedy; up to 100. Logits are divided by it. */
  temperature?: number
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

export interface SamplingParams {
  readonly maxTokens: number
  readonly temperature: number
  readonly seed: number
  readonly ignoreEos: boolean
  readonly bos: boolean
  readonly speculate: Speculation | undefined
  readonly priority: number
  readonly timeoutMs: number | undefined
  readonly queueTimeoutMs: number | undefined
  readonly signal: AbortSignal | undefined
}

const NAMES = ['maxTokens', 'temperature', 'seed', 'ignoreEos', 'bos', 'speculate', 'priority', 'timeoutMs', 'queueTimeoutMs', 'signal']

const fail: Fail = (facts) => new OptionError('OPTION_INVALID', facts)

/** Throws OptionError OPTION_UNKNOWN or OPTION_INVALID. */
export function resolveParams(params: GenerateParams = {}): SamplingParams {
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
  return Object.freeze({
    maxTokens: checkInteger('maxTokens', p.maxTokens ?? 256, 1, Number.MAX_SAFE_INTEGER, fail),
    temperature,
    seed: checkInteger('seed', p.seed ?? randomBytes(6).readUIntBE(0, 6), 0, Number.MAX_SAFE_INTEGER, fail),
    ignoreEos: checkBoolean('ignoreEos', p.ignoreEos, fail),
    bos: checkBoolean('bos', p.bos, fail),
    speculate: p.speculate === undefined ? undefined : speculation(p.speculate),
    priority: checkInteger('priority', p.priority ?? 0, 0, MOST_PRIORITY, fail),
    timeoutMs: timeout('timeoutMs', p.timeoutMs),
    queueTimeoutMs: timeout('queueTimeoutMs', p.queueTimeoutMs),
    signal: checkInstance('signal', p.signal, (v): v is AbortSignal => v instanceof AbortSignal, 'an AbortSignal'),
  })
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
