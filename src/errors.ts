// Every error that users meet: a class per kind, a stable code per failure, and what, expected, actual, remedy.

export interface ErrorFacts {
  /** What went wrong, naming the file, option or tensor. */
  readonly what: string
  readonly expected?: string
  readonly actual?: string
  /** What the reader can do about it. */
  readonly remedy: string
  readonly cause?: unknown
  /** Of an OptionError: the option, as the caller wrote it. */
  readonly option?: string
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

/** An unknown option or parameter, or a value out of its range. */
export class OptionError extends TetradError {
  override readonly name = 'OptionError'
  /** The option, as the caller wrote it: topP, --top-p or top_p. Undefined where the error is about several. */
  readonly option: string | undefined

  constructor(code: ErrorCode, facts: ErrorFacts) {
    super(code, facts)
    this.option = facts.option
  }
}

/** A file of the model that can't be read or isn't what it says. */
export class CheckpointError extends TetradError {
  override readonly name = 'CheckpointError'
}

/** A request that this model can't serve. */
export class RequestError extends TetradError {
  override readonly name = 'RequestError'
}

/** Ranks failed more often than the engine may restart them. */
export class RankError extends TetradError {
  override readonly name = 'RankError'
}

/** No replica is left that could run a request. */
export class ReplicaError extends TetradError {
  override readonly name = 'ReplicaError'
}

/** The NATS cluster can't be reached, or was lost. */
export class ClusterError extends TetradError {
  override readonly name = 'ClusterError'
}

/** A file of batch requests or of their results that can't be used, or jobs that can't be run. */
export class BatchError extends TetradError {
  override readonly name = 'BatchError'
}

/** The engine is closed, or was closed while the call ran. */
export class EngineClosedError extends TetradError {
  override readonly name = 'EngineClosedError'
}

/** The queue is full. */
export class OverloadedError extends TetradError {
  override readonly name = 'OverloadedError'
  /** When a place may be free, milliseconds; an estimate from the requests before. */
  readonly retryAfterMs: number

  constructor(retryAfterMs: number, facts: ErrorFacts) {
    super('OVERLOADED', facts)
    this.retryAfterMs = retryAfterMs
  }
}

/** Not enough memory for what was asked. */
export class MemoryError extends TetradError {
  override readonly name = 'MemoryError'
}

/** A snapshot file that can't be used, or not here. */
export class SnapshotError extends TetradError {
  override readonly name = 'SnapshotError'
}

/** Code -> what it means, and what helps. docs/errors.md is made from this table. */
export const ERROR_CODES = {
  OPTION_UNKNOWN: { meaning: 'An option or parameter name that is not known.', remedy: 'Remove it or correct its spelling.' },
  OPTION_INVALID: { meaning: 'An option or parameter with a value out of its range.', remedy: 'Give a value that the message lists.' },
  MODEL_NOT_FOUND: {
    meaning: 'The model directory, or a file it must hold, does not exist or cannot be read.',
    remedy: 'Check the path and its permissions.',
  },
  CONFIG_INVALID: {
    meaning: 'config.json is not JSON, lacks a field, or has one out of range.',
    remedy: 'Fetch it again, or use a checkpoint whose dimensions can be cut.',
  },
  VARIANT_UNKNOWN: {
    meaning: "The tensors' names and shapes fit no known attention variant.",
    remedy: 'Check that config.json belongs to the weights.',
  },
  VARIANT_UNSUPPORTED: {
    meaning: 'A known attention variant that this version does not run.',
    remedy: 'Use a checkpoint of a variant that the README lists.',
  },
  CHECKPOINT_INVALID: {
    meaning: 'A weight file is damaged or not of the format that its name says.',
    remedy: 'Fetch it again, or save it with torch.save or as safetensors.',
  },
  CHECKPOINT_UNSAFE: {
    meaning: 'A weight file asks for something that only code could do. Nothing of it was run.',
    remedy: 'Do not use the file; ask for safetensors.',
  },
  CHECKPOINT_CHANGED: {
    meaning: 'A weight file was replaced or rewritten while it was being loaded.',
    remedy: 'Load again when the files are complete.',
  },
  TENSOR_MISSING: { meaning: 'A tensor that the variant needs is in no file.', remedy: 'Check that all parts of the checkpoint are there.' },
  TENSOR_SURPLUS: { meaning: 'A tensor that the variant does not have.', remedy: 'Check that config.json belongs to the weights.' },
  TENSOR_SHAPE: { meaning: 'A tensor has another shape than the configuration says.', remedy: 'Check that config.json belongs to the weights.' },
  TENSOR_DTYPE: { meaning: 'A tensor has an element type that cannot be loaded.', remedy: 'Convert the checkpoint to float32, float16 or bfloat16.' },
  TENSOR_NON_FINITE: {
    meaning: 'A weight is NaN or infinite (float64 values beyond float32 included).',
    remedy: 'Use another checkpoint: the training or the conversion went wrong.',
  },
  TOKENIZER_INVALID: {
    meaning: 'tokenizer.json cannot be used, or has ids that the model does not.',
    remedy: 'Fetch it again, or remove it and give prompts as token ids.',
  },
  TEMPLATE_FAILED: {
    meaning: "The model's chat template threw, took too long or needed too much memory.",
    remedy: 'Send messages that the template supports, or a prompt of your own.',
  },
  TOKENIZER_MISSING: { meaning: 'A text prompt for a model without a tokenizer.', remedy: 'Give the prompt as token ids.' },
  PROMPT_EMPTY: { meaning: 'A prompt without tokens.', remedy: 'Give a text or token ids.' },
  PROMPT_TOO_LONG: { meaning: 'A prompt that does not fit the context.', remedy: 'Shorten the prompt.' },
  REQUEST_TOO_LARGE: {
    meaning: 'A request that this engine can never hold: too many completions of one prompt, or logits of too many tokens.',
    remedy: 'Ask for what the message says is possible.',
  },
  MESSAGES_INVALID: {
    meaning: "Chat messages that are not a list of { role, content }, or that the model's chat template refuses.",
    remedy: 'Correct the messages.',
  },
  TOKEN_INVALID: { meaning: 'A token id that is not an integer of the vocabulary.', remedy: "Use this model's tokenizer." },
  RANK_FAILED: {
    meaning: 'A rank threw while it ran a step, or could not be started.',
    remedy: 'The engine restarts its ranks and goes on; this reaches a request only after maxRestarts.',
  },
  RANK_LATE: {
    meaning: 'A rank did not come to a collective, or did not end a step, in time.',
    remedy: 'Load another engine; raise stepDeadlineMs if the machine is just slow.',
  },
  RANK_EXITED: { meaning: 'The worker thread of a rank ended.', remedy: 'Close the engine and load another.' },
  NON_FINITE_LOGITS: { meaning: 'The logits of a step are NaN or infinite.', remedy: 'Use another checkpoint, or f32 weights and cache.' },
  OVERLOADED: { meaning: 'The queue holds maxQueue requests already.', remedy: 'Send the request again after retryAfterMs, or raise maxQueue.' },
  TIMEOUT: { meaning: 'A request waited or ran longer than its timeout.', remedy: 'Raise timeoutMs or queueTimeoutMs, or ask for fewer tokens.' },
  ENGINE_CLOSED: { meaning: 'A call on an engine that is closed, or was closed while the call ran.', remedy: 'Load another engine.' },
  MEMORY_EXHAUSTED: {
    meaning: 'Not enough memory for the model, or the allocation failed.',
    remedy: 'Choose what the message says would fit, or free memory.',
  },
  LISTEN_FAILED: {
    meaning: 'The server cannot listen at its address: the port is taken, or the machine does not have the address.',
    remedy: 'Choose another --port or --host.',
  },
  OUTPUT_EXISTS: { meaning: 'The output directory holds a model already.', remedy: 'Choose another directory, or remove the model first.' },
  OUTPUT_FAILED: {
    meaning: 'A file could not be written, or there is no room for it.',
    remedy: 'Check the path, its permissions and the room on its disk.',
  },
  SNAPSHOT_INVALID: { meaning: 'The file is damaged or not a snapshot.', remedy: 'Save the snapshot again.' },
  SNAPSHOT_MISMATCH: {
    meaning: 'A snapshot of another model, weight or cache format, or determinism key.',
    remedy: 'Load it where it was saved, or save it again here.',
  },
  SNAPSHOT_NO_ROOM: {
    meaning: 'The cache has no room for a snapshot.',
    remedy: 'Wait until requests have ended, or load the engine with more cacheTokens.',
  },
  REPLICA_FAILED: {
    meaning: 'No process is left that could run the request: replicas ended, or did not answer in time, more often than they are started anew.',
    remedy: 'See the log for why they ended; start the server again.',
  },
  NATS_UNREACHABLE: {
    meaning: 'No NATS server at the address lets this client in.',
    remedy: 'Check the address, that nats-server runs there, and the credentials and certificates.',
  },
  NATS_LOST: {
    meaning: 'The connection to NATS was lost, and did not come back in time.',
    remedy: 'Send the request again when the NATS servers are back.',
  },
  NATS_NO_JETSTREAM: {
    meaning: 'The NATS server keeps no streams, which batch jobs need.',
    remedy: 'Start nats-server with -js, or allow JetStream for the account.',
  },
  MESSAGE_TOO_LARGE: {
    meaning: 'A request or an answer that is larger than the messages of the NATS server.',
    remedy: 'Raise max_payload of the NATS servers, or ask for less at once.',
  },
  BATCH_INVALID: { meaning: 'A file of batch requests, or a line of it, that cannot be used.', remedy: 'Correct what the message names.' },
  BATCH_OUTPUT_MISMATCH: {
    meaning: 'The file for results holds those of other requests, or of another model version.',
    remedy: 'Name another file, or remove this one.',
  },
  BATCH_ABORTED: { meaning: 'A batch was stopped by its signal. What was done is in the file.', remedy: 'Run the same command again to go on.' },
  SYNTH_ABORTED: { meaning: 'Writing a synthetic checkpoint was stopped.', remedy: 'Start it again when it is wanted.' },
  EVAL_DATA_INVALID: { meaning: 'A file or array for an evaluation that cannot be used.', remedy: 'Correct what the message names.' },
  REQUEST_ABORTED: { meaning: 'A score or an evaluation was stopped by its signal.', remedy: 'Start it again when it is wanted.' },
  LOAD_ABORTED: { meaning: 'Loading was stopped by its signal.', remedy: 'Load again when it is wanted.' },
} as const

export type ErrorCode = keyof typeof ERROR_CODES
