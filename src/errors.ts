// Every error that users meet: a class per kind, a stable code per failure, and what, expected, actual, remedy.

export interface ErrorFacts {
  /** What went wrong, naming the file, option or tensor. */
  readonly what: string
  readonly expected?: string
  readonly actual?: string
  /** What the reader can do about it. */
  readonly remedy: string
  readonly cause?: unknown
}

/** The base of all of Tetrad's errors. `code` is stable between versions; the wording is not. */
export class TetradError extends Error {
  override readonly name: string = 'TetradError'
  readonly code: ErrorCode
  readonly what: string
  readonly expected: string | undefined
  readonly actual: string | undefined
  readonly remedy: string

  constructor(code: ErrorCode, facts: ErrorFacts) {
    const compared = [facts.expected && `expected ${facts.expected}`, facts.actual && `actual ${facts.actual}`].filter(Boolean)
    const middle = compared.length > 0 ? ` (${compared.join('; ')})` : ''
    super(`${facts.what}${middle}. ${facts.remedy}`, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.code = code
    this.what = facts.what
    this.expected = facts.expected
    this.actual = facts.actual
    this.remedy = facts.remedy
  }
}

/** An option or a parameter that can't be taken. */
export class OptionError extends TetradError {
  override readonly name = 'OptionError'
}

/** A file of the model that can't be read or isn't what it says. */
export class CheckpointError extends TetradError {
  override readonly name = 'CheckpointError'
}

/** A request that this model can't serve. */
export class RequestError extends TetradError {
  override readonly name = 'RequestError'
}

/** A rank failed or was late; the request it was serving is lost. */
export class RankError extends TetradError {
  override readonly name = 'RankError'
}

/** The engine is closed, or was closed while the call ran. */
export class EngineClosedError extends TetradError {
  override readonly name = 'EngineClosedError'
}

/** Not enough memory for what was asked. */
export class MemoryError extends TetradError {
  override readonly name = 'MemoryError'
}

/** Code -> what it means. */
export const ERROR_CODES = {
  OPTION_UNKNOWN: 'An option or parameter name that is not known.',
  OPTION_INVALID: 'An option or parameter with a value out of its range.',
  MODEL_NOT_FOUND: 'The model directory, or a file it must hold, does not exist or cannot be read.',
  CONFIG_INVALID: 'config.json is not JSON, lacks a field, or has one out of range.',
  VARIANT_UNKNOWN: "The tensors' names and shapes fit no known attention variant.",
  VARIANT_UNSUPPORTED: 'A known attention variant that this version does not run.',
  CHECKPOINT_INVALID: 'A weight file is damaged or not of the format that its name says.',
  CHECKPOINT_UNSAFE: 'A weight file asks for something that only code could do.',
  TENSOR_MISSING: 'A tensor that the variant needs is in no file.',
  TENSOR_SURPLUS: 'A tensor that the variant does not have.',
  TENSOR_SHAPE: 'A tensor has another shape than the configuration says.',
  TENSOR_DTYPE: 'A tensor has an element type that cannot be loaded.',
  TENSOR_NON_FINITE: 'A weight is NaN or infinite.',
  TOKENIZER_INVALID: 'tokenizer.json cannot be used.',
  TOKENIZER_MISSING: 'A text prompt for a model without a tokenizer.',
  PROMPT_EMPTY: 'A prompt without tokens.',
  PROMPT_TOO_LONG: 'A prompt that does not fit the context.',
  TOKEN_INVALID: 'A token id that is not an integer of the vocabulary.',
  RANK_FAILED: 'A rank threw while it ran a step.',
  RANK_LATE: 'A rank did not come to a collective, or did not end a step, in time.',
  RANK_EXITED: 'The worker thread of a rank ended.',
  NON_FINITE_LOGITS: 'The logits of a step are NaN or infinite.',
  ENGINE_CLOSED: 'A call on an engine that is closed or has failed for good.',
  MEMORY_EXHAUSTED: 'The machine would not give the memory that the model needs.',
  LOAD_ABORTED: 'Loading was stopped by its signal or by close.',
} as const

export type ErrorCode = keyof typeof ERROR_CODES
