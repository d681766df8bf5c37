// All errors that users see: a class for each kind, a stable code for each failure, and what, expected, actual and remedy.

/** What an error says. */
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

/** Base class of all errors of Tetrad. `code` is stable between versions; the wording is not. */
export class TetradError extends Error {
  override readonly name: string = 'TetradError'
  /** Stable between versions. */
  readonly code: ErrorCode
  /** What went wrong, naming the file, option or tensor. */
  readonly what: string
  /** What would be right, if that can be said. */
  readonly expected: string | undefined
  /** What was found instead. */
  readonly actual: string | undefined
  /** What the reader can do about it. */
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

/** An option or a parameter with an unknown name or an invalid value. */
export class OptionError extends TetradError {
  override readonly name = 'OptionError'
  /** The option, as the caller wrote it: topP, --top-p or top_p. undefined if the error is about several options. */
  readonly option: string | undefined

  constructor(code: ErrorCode, facts: ErrorFacts) {
    super(code, facts)
    this.option = facts.option
  }
}

/** A file of the model that cannot be read, or whose contents are invalid. */
export class CheckpointError extends TetradError {
  override readonly name = 'CheckpointError'
}

/** A low-rank adapter that cannot be loaded, or is not there. */
export class AdapterError extends TetradError {
  override readonly name = 'AdapterError'
}

/** The Hugging Face Hub has no such model, refuses it, or cannot be reached. */
export class HubError extends TetradError {
  override readonly name = 'HubError'
}

/** A request that this model cannot serve. */
export class RequestError extends TetradError {
  override readonly name = 'RequestError'
}

/** Ranks failed more often than the engine may restart them. */
export class RankError extends TetradError {
  override readonly name = 'RankError'
}

/** No replica can run the request. */
export class ReplicaError extends TetradError {
  override readonly name = 'ReplicaError'
}

/** The NATS cluster cannot be reached, or the connection to it was lost. */
export class ClusterError extends TetradError {
  override readonly name = 'ClusterError'
}

/** A file of batch requests or of results that cannot be used, or jobs that cannot be run. */
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
  /** Estimated time until a place is free, milliseconds. */
  readonly retryAfterMs: number

  constructor(retryAfterMs: number, facts: ErrorFacts) {
    super('OVERLOADED', facts)
    this.retryAfterMs = retryAfterMs
  }
}

/** Not enough memory for the model or a request. */
export class MemoryError extends TetradError {
  override readonly name = 'MemoryError'
}

/** A snapshot file that is invalid, or does not fit this engine. */
export class SnapshotError extends TetradError {
  override readonly name = 'SnapshotError'
}

/** Meaning and remedy of each code. docs/errors.md is generated from this table. */
export const ERROR_CODES = {
  OPTION_UNKNOWN: { meaning: 'The name of an option or parameter is unknown.', remedy: 'Remove it or correct its spelling.' },
  OPTION_INVALID: { meaning: 'The value of an option or parameter is not allowed.', remedy: 'Use a value that the message lists.' },
  MODEL_NOT_FOUND: {
    meaning: 'The model directory, or a file it must hold, does not exist or cannot be read.',
    remedy: 'Check the path and its permissions.',
  },
  CONFIG_INVALID: {
    meaning: 'config.json is not JSON, lacks a field, or has a value that is out of range or not supported.',
    remedy: 'Fetch the file again, or use a checkpoint whose dimensions can be split into four shards.',
  },
  VARIANT_UNKNOWN: {
    meaning: "The tensors' names and shapes match no known attention variant.",
    remedy: 'Check that config.json belongs to the weights.',
  },
  VARIANT_UNSUPPORTED: {
    meaning: 'The attention variant is known, but this version does not support it.',
    remedy: 'Use a checkpoint of a supported variant.',
  },
  CHECKPOINT_INVALID: {
    meaning: 'A weight file is damaged, or is not in the format that its name says.',
    remedy: 'Fetch it again, or save it with torch.save or as safetensors.',
  },
  CHECKPOINT_UNSAFE: {
    meaning: 'Loading a weight file would require running code from it. No code was run.',
    remedy: 'Do not use the file. Use safetensors instead.',
  },
  CHECKPOINT_CHANGED: {
    meaning: 'A weight file was replaced or changed while it was loaded.',
    remedy: 'Load again when the files are complete.',
  },
  TENSOR_MISSING: { meaning: 'A tensor that the model needs is in no file.', remedy: 'Check that all parts of the checkpoint are there.' },
  TENSOR_SURPLUS: { meaning: 'A file has a tensor that the model does not use.', remedy: 'Check that config.json belongs to the weights.' },
  TENSOR_SHAPE: { meaning: 'The shape of a tensor does not match config.json.', remedy: 'Check that config.json belongs to the weights.' },
  TENSOR_DTYPE: { meaning: 'The element type of a tensor is not supported.', remedy: 'Convert the checkpoint to float32, float16 or bfloat16.' },
  TENSOR_NON_FINITE: {
    meaning: 'A weight is NaN or infinite (or a float64 value outside the range of float32).',
    remedy: 'Use another checkpoint: the training or the conversion failed.',
  },
  ADAPTER_NOT_FOUND: {
    meaning: 'No adapter of this name is loaded, or the directory holds none.',
    remedy: 'Load it first, or correct the name or the path.',
  },
  ADAPTER_EXISTS: { meaning: 'An adapter of this name is loaded already.', remedy: 'Unload it first, or choose another name.' },
  ADAPTER_INVALID: {
    meaning: 'The files of an adapter are damaged, or do not belong to the model.',
    remedy: 'Save the adapter again, or use the model that it was trained for.',
  },
  ADAPTER_UNSUPPORTED: {
    meaning: 'The adapter, or the backend, asks for something that would change the result and is not done.',
    remedy: 'Do what the message says; often: merge the adapter into the model.',
  },
  ADAPTER_NO_ROOM: {
    meaning: 'There is no place for the adapter: too many, of too large a rank, or with too many bytes.',
    remedy: 'Unload another one, or load the engine with larger maxAdapters, maxAdapterRank or adapterBytes.',
  },
  HUB_NOT_FOUND: {
    meaning: 'The Hugging Face Hub has no such repository, revision, folder or file, or the repository holds no model there.',
    remedy: 'Check the address: hf:owner/name[@revision][/folder].',
  },
  HUB_DENIED: {
    meaning: 'The Hugging Face Hub refuses access: the repository is gated or private, or the token is not valid.',
    remedy: 'Ask for access on the page of the repository, and set HF_TOKEN.',
  },
  HUB_UNREACHABLE: {
    meaning: 'The Hugging Face Hub did not answer in time, or cut the link too often; or HF_HUB_OFFLINE is set and the cache lacks the model.',
    remedy: 'Check the network and run it again: a download continues where it ended.',
  },
  HUB_INVALID: {
    meaning: 'What the Hugging Face Hub sent is not what it announced: another hash, size, name or format.',
    remedy: 'Run it again. If it stays so, the repository or a proxy is damaged.',
  },
  TOKENIZER_INVALID: {
    meaning: 'tokenizer.json cannot be used, or has ids outside the vocabulary of the model.',
    remedy: 'Fetch it again, or remove it and give prompts as token ids.',
  },
  TEMPLATE_FAILED: {
    meaning: "The model's chat template threw, took too long or needed too much memory.",
    remedy: 'Send messages that the template supports, or a prompt of your own.',
  },
  TOKENIZER_MISSING: { meaning: 'The prompt is a text, but the model has no tokenizer.', remedy: 'Give the prompt as token ids.' },
  PROMPT_EMPTY: { meaning: 'The prompt has no tokens.', remedy: 'Give a text or token ids.' },
  PROMPT_TOO_LONG: { meaning: 'The prompt does not fit the context.', remedy: 'Shorten the prompt, or load the model with a larger maxContext.' },
  REQUEST_TOO_LARGE: {
    meaning: 'The engine can never hold the request: too many completions of one prompt, or logits of too many tokens.',
    remedy: 'Ask for what the message says is possible.',
  },
  MESSAGES_INVALID: {
    meaning: 'Chat messages are not a list of { role, content }.',
    remedy: 'Correct the messages.',
  },
  TOKEN_INVALID: { meaning: 'A token id is not an integer within the vocabulary.', remedy: "Use this model's tokenizer." },
  RANK_FAILED: {
    meaning: 'A rank threw an error in a step, or could not be started.',
    remedy: 'The engine restarts its ranks by itself. A request gets this error only after maxRestarts restarts.',
  },
  RANK_LATE: {
    meaning: 'A rank did not reach a collective, or did not finish a step, in time.',
    remedy: 'Load another engine. Raise stepDeadlineMs if the machine is only slow.',
  },
  RANK_EXITED: { meaning: 'The worker thread of a rank ended.', remedy: 'Close the engine and load another one.' },
  NON_FINITE_LOGITS: { meaning: 'The logits of a step are NaN or infinite.', remedy: 'Use another checkpoint, or f32 weights and an f32 cache.' },
  OVERLOADED: { meaning: 'The queue is full: it has maxQueue requests.', remedy: 'Send the request again after retryAfterMs, or raise maxQueue.' },
  TIMEOUT: { meaning: 'The request waited or ran longer than its timeout.', remedy: 'Raise timeoutMs or queueTimeoutMs, or ask for fewer tokens.' },
  ENGINE_CLOSED: { meaning: 'The engine is closed, or was closed during the call.', remedy: 'Load another engine.' },
  MEMORY_EXHAUSTED: {
    meaning: 'Not enough memory for the model, or the allocation failed.',
    remedy: 'Use the options that the message says would fit, or free memory.',
  },
  OUTPUT_EXISTS: { meaning: 'The output file or directory exists already.', remedy: 'Choose another one, or remove it first.' },
  OUTPUT_FAILED: {
    meaning: 'A file could not be written, or its disk is full.',
    remedy: 'Check the path, its permissions and the free space on its disk.',
  },
  SNAPSHOT_INVALID: { meaning: 'The file is damaged or not a snapshot.', remedy: 'Save the snapshot again.' },
  SNAPSHOT_MISMATCH: {
    meaning: 'The snapshot belongs to another model, weight format, cache format or determinism key.',
    remedy: 'Load it into an engine like the one that saved it, or save it again here.',
  },
  CONSTRAINT_FAILED: {
    meaning: 'The output cannot be held to a schema or a grammar: it cannot be read, or takes too much time or memory.',
    remedy: 'Correct it, or make it simpler.',
  },
  SNAPSHOT_NO_ROOM: {
    meaning: 'The cache has no room for the snapshot.',
    remedy: 'Wait until requests have ended, or load the engine with more cacheTokens.',
  },
  LISTEN_FAILED: {
    meaning: 'The server cannot listen at its address: another program uses the port, or this machine does not have the address.',
    remedy: 'Choose another --port or --host.',
  },
  REPLICA_FAILED: {
    meaning: 'No replica can run the request: replicas ended, or did not answer in time, more often than they are restarted.',
    remedy: 'Check the log for why they ended, and start the server again.',
  },
  NATS_UNREACHABLE: {
    meaning: 'No NATS server at the address accepts this client.',
    remedy: 'Check the address, that nats-server runs there, and the credentials and certificates.',
  },
  NATS_LOST: {
    meaning: 'The connection to NATS was lost and not restored in time.',
    remedy: 'Send the request again when the NATS servers are back.',
  },
  NATS_NO_JETSTREAM: {
    meaning: 'The NATS server has no streams, which batch jobs need.',
    remedy: 'Start nats-server with -js, or allow JetStream for the account.',
  },
  MESSAGE_TOO_LARGE: {
    meaning: 'A request or an answer is larger than the NATS server accepts.',
    remedy: 'Raise max_payload of the NATS servers, or send less at once.',
  },
  BATCH_INVALID: { meaning: 'A file of batch requests, or a line of it, cannot be used.', remedy: 'Correct what the message names.' },
  BATCH_OUTPUT_MISMATCH: {
    meaning: 'The file for results has results of other requests, of a changed request, or of another model version.',
    remedy: 'Name another file, or remove this one.',
  },
  BATCH_ABORTED: {
    meaning: 'A batch was stopped by its signal. Its results so far are in the file.',
    remedy: 'Run the same command again to continue.',
  },
  SYNTH_ABORTED: { meaning: 'Writing a synthetic checkpoint was stopped by its signal.', remedy: 'Start it again if it is needed.' },
  EVAL_DATA_INVALID: { meaning: 'A file or array cannot be used for an evaluation.', remedy: 'Correct what the message names.' },
  REQUEST_ABORTED: { meaning: 'A score or an evaluation was stopped by its signal.', remedy: 'Start it again if it is needed.' },
  LOAD_ABORTED: { meaning: 'Loading was stopped by its signal.', remedy: 'Load again if it is needed.' },
} as const

/** A stable code of an error. */
export type ErrorCode = keyof typeof ERROR_CODES
