// The public engine: takes prompts and answers with completions. What it runs on is built by load-parts.ts.
import { EMBEDDED_MODEL } from '../assets.js'
import { OptionError, type TetradError } from '../errors.js'
import { checkEvaluation } from '../evaluation/check-evaluation.js'
import {
  type LogLikelihood,
  type MultipleChoiceItem,
  type MultipleChoiceOptions,
  type MultipleChoiceResult,
  multipleChoice,
} from '../evaluation/multiple-choice.js'
import { type PerplexityOptions, type PerplexityResult, perplexity } from '../evaluation/perplexity.js'
import { limiter, type Scorer, type TokenScores } from '../evaluation/scoring.js'
import { checkBoolean, checkInteger, checkNames, invalidOption, show } from '../options/check.js'
import { checkParams } from '../options/generate-params.js'
import { MAX_TIMER_MS } from '../options/limits.js'
import type { EngineOptions, GenerateManyParams, GenerateParams } from '../options/public-types.js'
import type { ChatMessage, ChatTemplate, TemplateOptions } from '../tokenizer/chat-template.js'
import { type TokenPiece, TokenPieces } from '../tokenizer/token-pieces.js'
import type { MarkedText } from '../tokenizer/tokenizer-interface.js'
import type { AdapterInfo } from './adapters/adapter-store.js'
import { Admission } from './admission.js'
import { checkLogits, checkPath, refuseMany } from './call-checks.js'
import { Calls } from './calls.js'
import { chatPrompt } from './chat-prompt.js'
import { type EngineInfo, type EngineInternals, type EngineParts, type EngineStats, engineInfo, engineStats } from './engine-info.js'
import { type Chunk, type Completion, Generation } from './generation.js'
import { Grammars } from './grammars.js'
import { loadParts } from './load-parts.js'
import { everyLogits, scoreTokens } from './prompt-request.js'
import { checkPrompts, type Prompt, PromptReader } from './prompts.js'
import type { RestartEvent } from './ranks/coordinator.js'
import type { Profile } from './ranks/profile.js'
import { loadSnapshot, type SnapshotCache, saveSnapshot } from './snapshot/snapshot.js'
import { snapshotCache } from './snapshot/snapshot-cache.js'
import { CallRequests } from './start-requests.js'

/** A chunk of one of several prompts. */
export interface IndexedChunk extends Chunk {
  /** Which prompt it belongs to. */
  readonly index: number
}

/** Parameters of Engine.chat: those of generate, and how the conversation becomes a prompt. */
export interface ChatParams extends GenerateParams {
  readonly template?: TemplateOptions
}

/** For calls that take no other parameters of generate. */
export interface AdapterOption {
  /** Name of a loaded adapter. Default: the model alone. */
  readonly lora?: string
}

/** @internal */
export const INTERNALS = Symbol('tetrad internals')

/**
 * A model in memory, run by 1, 2 or 4 worker threads ("ranks"). Load it once and call it as often as you like, also at the same time: requests
 * join and leave the running batch at every step, and the output of each has the same bits as if it ran alone. Close it to end the threads.
 *
 * ```js
 * const engine = await Engine.load()
 * const { text } = await engine.generate('Once upon a time', { maxTokens: 64 })
 * await engine.close()
 * ```
 */
export class Engine implements AsyncDisposable {
  readonly #parts: EngineParts
  readonly #prompts: PromptReader
  readonly #admission: Admission
  readonly #pieces: TokenPieces
  readonly #calls: Calls
  #closed: Promise<void> | undefined
  #snapshots: SnapshotCache | undefined
  readonly #grammars: Grammars
  #template: Promise<ChatTemplate> | undefined
  /** What the engine runs: model, formats, sizes, determinism key. */
  readonly info: EngineInfo

  private constructor(parts: EngineParts) {
    this.#parts = parts
    this.info = engineInfo(parts)
    this.#prompts = new PromptReader(parts.tokenizer, this.info)
    this.#admission = new Admission(parts)
    this.#grammars = new Grammars(parts)
    this.#pieces = new TokenPieces(parts.tokenizer)
    this.#calls = new Calls(parts, this.info, this.#prompts, this.#admission, this.#grammars, this.#pieces)
  }

  /**
   * Loads a model over ranks.
   * @param model Directory with config.json, the weights, and tokenizer.json if there is one; a .gguf file; or hf:owner/name[@revision][/folder], a model of
   * the Hugging Face Hub, which is downloaded into the Hub's cache. Default: EMBEDDED_MODEL.
   * @throws OptionError, HubError, CheckpointError, MemoryError, RankError, or TetradError LOAD_ABORTED or OUTPUT_FAILED (the Hub's cache)
   */
  static async load(model: string = EMBEDDED_MODEL, options: EngineOptions = {}): Promise<Engine> {
    return new Engine(await loadParts(model, options))
  }

  /**
   * Generates from one prompt: a text, or token ids. Await the result for the completion, or iterate it for chunks as they come; leaving the
   * iteration early ends the request. Rejects with OptionError, RequestError (PROMPT_EMPTY, PROMPT_TOO_LONG, TOKEN_INVALID,
   * TOKENIZER_MISSING, TIMEOUT, NON_FINITE_LOGITS), OverloadedError, RankError or EngineClosedError.
   */
  generate(prompt: Prompt, params: GenerateParams = {}): Generation {
    const requests = new CallRequests()
    return new Generation<Completion, Chunk>(async (push) => {
      refuseMany(prompt, params)
      const [completion] = await this.#calls.start([prompt], params, requests, (_, chunk) => push(chunk))
      return completion as Completion
    }, requests)
  }

  /**
   * Generates from several prompts, `n` completions of each. The result is awaited for the completions, prompt by prompt, or iterated for
   * chunks with the index of their completion. A call with more completions than the engine holds at a time (maxRunning + maxQueue) starts
   * the others as places become free. Rejects as generate does, with the first failure, once all that were started have ended;
   * REQUEST_TOO_LARGE if the `n` completions of one prompt can never be held at the same time.
   */
  generateMany(prompts: readonly Prompt[], params: GenerateManyParams = {}): Generation<Completion[], IndexedChunk> {
    const requests = new CallRequests()
    return new Generation<Completion[], IndexedChunk>(
      async (push) => this.#calls.start(checkPrompts(prompts), params, requests, (index, chunk) => push({ ...chunk, index }), 'generateMany'),
      requests,
    )
  }

  /**
   * Generates the assistant's next message of a conversation. The prompt is made by the model's own chat template (chat_template.jinja or
   * tokenizer_config.json, read at the first call), otherwise as lines "User: ..." and "Assistant: ...". Rejects as generate does;
   * MESSAGES_INVALID for messages that are not valid, TEMPLATE_FAILED for a template that refuses them, CheckpointError TOKENIZER_INVALID for a template that
   * cannot be used.
   */
  chat(messages: readonly ChatMessage[], chatParams: ChatParams = {}): Generation {
    const requests = new CallRequests()
    return new Generation<Completion, Chunk>(async (push) => {
      const { template: options, ...params } = chatParams
      refuseMany('', params)
      checkParams(params, this.info.vocab, 'api', 'chat')
      this.#template ??= import('../tokenizer/chat-template.js').then(({ loadChatTemplate }) => loadChatTemplate(this.#parts.dir))
      this.#admission.checkOpen()
      const template = this.#template
      const { prompt, stop } = await this.#calls.prepared(template.then((found) => chatPrompt(found, messages, options)))
      const own = params.stop === undefined ? [] : [params.stop].flat()
      const [completion] = await this.#calls.start([prompt], { ...params, stop: [...own, ...stop] }, requests, (_, chunk) => push(chunk), 'chat')
      return completion as Completion
    }, requests)
  }

  /**
   * Logits after every token: [T, vocab], row-major, row t for the token after ids[t]. Rejects as generate does; REQUEST_TOO_LARGE if the array
   * would be larger than 2 GiB.
   */
  async logits(ids: readonly number[], options: AdapterOption = {}): Promise<Float32Array> {
    const { lora } = checkEvaluation('logits', options, ['lora'])
    const prompt = await this.#prompts.ids(ids, 0, false)
    const { vocab } = this.info
    checkLogits(prompt.length, vocab)
    this.#admission.check(1)
    const result = new Float32Array(prompt.length * vocab)
    const { adapters, coordinator } = this.#parts
    const onRow = (position: number, row: Float32Array | Float64Array) => result.set(row, position * vocab)
    await adapters.using(lora, (adapter) => everyLogits(coordinator, prompt, onRow, adapter))
    return result
  }

  /**
   * The same, one row at a time and in order: `onRow(position, row)` with the logits after ids[position], [vocab]. The row is reused: copy
   * what you keep. What onRow throws ends the request and rejects. Rejects as generate does.
   */
  async forEachLogits(ids: readonly number[], onRow: (position: number, row: Float32Array) => void, options: AdapterOption = {}): Promise<void> {
    const { lora } = checkEvaluation('forEachLogits', options, ['lora'])
    if (typeof onRow !== 'function') {
      throw invalidOption({
        what: 'onRow has the wrong type',
        expected: 'a function',
        actual: show(onRow),
        remedy: 'Pass a function.',
        option: 'onRow',
      })
    }
    const prompt = await this.#prompts.ids(ids, 0, false)
    this.#admission.check(1)
    const row = new Float32Array(this.info.vocab)
    const { adapters, coordinator } = this.#parts
    const passRow = (position: number, logits: Float32Array | Float64Array) => {
      row.set(logits)
      onRow(position, row)
    }
    await adapters.using(lora, (adapter) => everyLogits(coordinator, prompt, passRow, adapter))
  }

  /**
   * Log-likelihood of a continuation after a context, as in lm-evaluation-harness: two texts are tokenized together, white space at the end of
   * the context counts as the continuation's, and the continuation's tokens are those after the context's own. Calls may run at once; what
   * contexts have in common is computed once. `bos` puts the token that begins a document before the context, which may be empty then.
   * Rejects as generate does; an aborted signal rejects with REQUEST_ABORTED.
   */
  async loglikelihood(
    context: Prompt,
    continuation: Prompt,
    options: AdapterOption & { bos?: boolean; signal?: AbortSignal } = {},
  ): Promise<LogLikelihood> {
    const { bos, lora, signal } = checkEvaluation('loglikelihood', options, ['bos', 'lora', 'signal'])
    const { ids, from } = await this.#prompts.join(context, continuation, bos)
    const { logProbabilities: perToken, isGreedy } = await this.#score(ids, from, signal, lora)
    return { sum: perToken.reduce((sum, p) => sum + p, 0), perToken: [...perToken], isGreedy }
  }

  /**
   * Perplexity of a file of tokens (little-endian uint16, with or without the authors' header) or of an array, by the authors' protocol; windows
   * run batched. Rejects with OptionError, EVAL_DATA_INVALID, REQUEST_ABORTED, or as generate does.
   */
  async perplexity(source: string | readonly number[], options: PerplexityOptions = {}): Promise<PerplexityResult> {
    const { contextTokens, vocab } = this.info
    const { lora, signal } = checkEvaluation('perplexity', options, [
      'lora',
      'blockSize',
      'windows',
      'firstToken',
      'onProgress',
      'onWindow',
      'signal',
    ])
    const count = (name: string, value: number | undefined, min: number, max: number) =>
      value === undefined ? undefined : checkInteger(name, value, min, max, invalidOption)
    const blockSize = count('blockSize', options.blockSize, 1, contextTokens) ?? Math.min(this.#parts.model.config.contextTokens, contextTokens)
    const windows = count('windows', options.windows, 1, Number.MAX_SAFE_INTEGER)
    const firstToken = count('firstToken', options.firstToken, 0, Number.MAX_SAFE_INTEGER) ?? 0
    return perplexity(this.#scorer(lora), source, { ...options, blockSize, windows, firstToken, vocab, signal })
  }

  /**
   * Accuracy on multiple-choice items: a JSONL file of {query, choices, gold}, or an array of them. Choices run batched, and a query is computed
   * once for all of its choices. A query that does not fit the context is cut from the left, and counted in the result; an item that cannot be
   * scored says why in its `error`. Rejects with OptionError, EVAL_DATA_INVALID, REQUEST_ABORTED, or as generate does.
   */
  async multipleChoice(source: string | readonly MultipleChoiceItem[], options: MultipleChoiceOptions = {}): Promise<MultipleChoiceResult> {
    const { bos, lora, signal } = checkEvaluation('multipleChoice', options, ['bos', 'lora', 'onProgress', 'onItem', 'signal'])
    const { concurrency } = this.#scorer(lora)
    const limited = limiter(concurrency)
    const score = async (query: string, choice: string) => {
      // As in lm-evaluation-harness, an empty query is the beginning of a text.
      const { ids, from, truncatedTokens } = await this.#prompts.joinCut(query, choice, bos || (query === '' && this.#prompts.hasBos))
      const { logProbabilities } = await this.#score(ids, from, signal, lora)
      return { sum: logProbabilities.reduce((sum, p) => sum + p, 0), truncatedTokens }
    }
    return multipleChoice((query, choice) => limited(() => score(query, choice)), concurrency, source, options)
  }

  #scorer(lora: string | undefined): Scorer {
    return { concurrency: this.#parts.plan.slots, score: (tokens, from, signal) => this.#score(tokens, from, signal, lora) }
  }

  async #score(ids: readonly number[], from: number, signal: AbortSignal | undefined, lora: string | undefined): Promise<TokenScores> {
    const prompt = await this.#prompts.ids(ids.slice(0, -1), 0, false)
    const [next] = (await this.#prompts.ids(ids.slice(-1), 0, false)) as [number]
    this.#admission.check(1)
    const { adapters, coordinator } = this.#parts
    return adapters.using(lora, (adapter) => scoreTokens(coordinator, prompt, { from, next }, signal, adapter))
  }

  /**
   * Writes what is cached of a prompt to a file (computing what is not), to be loaded by an engine of the same model, formats and
   * determinism key at any rank count. The file is there as a whole or not at all. Rejects as generate does, with
   * SnapshotError SNAPSHOT_NO_ROOM, or with TetradError OUTPUT_FAILED.
   */
  async saveSnapshot(prompt: Prompt, path: string): Promise<{ tokens: number; bytes: number }> {
    const cache = this.#snapshotCache()
    const ids = await this.#prompts.ids(prompt, 1, undefined)
    // Greedy, one token: afterwards every row of the prompt is in the cache.
    await this.generate(ids, { maxTokens: 1, ignoreEos: true })
    return saveSnapshot(cache, ids, checkPath(path))
  }

  /**
   * Brings the prefix of a snapshot back into the cache: a prompt that begins with its tokens finds them computed. Resolves with the
   * tokens. Rejects with SnapshotError SNAPSHOT_INVALID, SNAPSHOT_MISMATCH or SNAPSHOT_NO_ROOM, and then nothing of it is in the cache.
   */
  async loadSnapshot(path: string): Promise<{ tokens: number[] }> {
    const cache = this.#snapshotCache()
    return { tokens: await loadSnapshot(cache, checkPath(path)) }
  }

  #snapshotCache(): SnapshotCache {
    this.#admission.check(0)
    this.#snapshots ??= snapshotCache(this.#parts, this.info)
    return this.#snapshots
  }

  /**
   * Token ids of a text, without those that the tokenizer would add around it. Made on another thread. `bos`: the id that begins a document
   * comes first; default false. Rejects with RequestError TOKENIZER_MISSING, or PROMPT_TOO_LONG for a text that cannot fit the context, and
   * with OptionError.
   */
  tokenize(text: string | MarkedText, options: { bos?: boolean } = {}): Promise<number[]> {
    return this.#prompts.tokenize(text, checkBoolean('bos', checkNames('tokenize', options, ['bos']).bos, invalidOption))
  }

  /** The text of token ids, special tokens left out; '' without a tokenizer. */
  detokenize(ids: readonly number[]): string {
    return this.#prompts.textOf(ids)
  }

  /** The bytes of one token, also of one that is part of a character; none without a tokenizer. */
  tokenPiece(id: number): TokenPiece {
    return this.#pieces.piece(id)
  }

  /**
   * Loads a low-rank adapter (LoRA) from a directory as PEFT saves them, while requests run; those with `lora: name` have it from then on.
   * Rejects with OptionError, AdapterError, CheckpointError or MemoryError, and then nothing has changed. See docs/lora.md.
   */
  async loadAdapter(name: string, dir: string): Promise<AdapterInfo> {
    this.#admission.checkOpen()
    return this.#calls.prepared(this.#parts.adapters.load(name, dir))
  }

  /**
   * Takes an adapter away: new requests with it are refused at once, those that have it run to their end. Resolves when they have ended and
   * its memory is free. Rejects with AdapterError ADAPTER_NOT_FOUND or ADAPTER_UNSUPPORTED.
   */
  unloadAdapter(name: string): Promise<void> {
    return this.#parts.adapters.unload(name)
  }

  /** The adapters that are loaded. */
  get adapters(): readonly AdapterInfo[] {
    return this.#parts.adapters.list
  }

  /** Why no call can succeed any more: ranks failed more often than maxRestarts, or the engine is closed. undefined while it works. */
  get failure(): TetradError | undefined {
    return this.#parts.coordinator.fatal
  }

  /** What the engine is doing and has done. */
  stats(): EngineStats {
    return engineStats(this.#parts)
  }

  /**
   * Where the time of the steps since the last call went. Ask between requests. Throws OptionError without the option `profile`.
   */
  profile(): Profile {
    const { profiler } = this.#parts
    if (profiler) return profiler.take()
    throw new OptionError('OPTION_INVALID', {
      what: 'this engine keeps no profile',
      expected: 'profile: true',
      actual: 'false',
      remedy: 'Load it with the option profile.',
    })
  }

  /** Calls `listener` when the ranks failed and were restarted; no request is lost by that. */
  on(event: 'restart', listener: (event: RestartEvent) => void): this {
    this.#parts.events.on(event, listener)
    return this
  }

  /** Removes a listener. */
  off(event: 'restart', listener: (event: RestartEvent) => void): this {
    this.#parts.events.off(event, listener)
    return this
  }

  /**
   * Takes no more requests, lets the others run for up to drainMs (0 to 2147483647, default 0), rejects the rest with EngineClosedError, and
   * ends the threads. Closing again does nothing more. Rejects with OptionError.
   */
  async close(options: { drainMs?: number } = {}): Promise<void> {
    const { drainMs } = checkNames('close', options, ['drainMs'])
    const drain = checkInteger('drainMs', drainMs ?? 0, 0, MAX_TIMER_MS, invalidOption)
    this.#admission.close()
    this.#closed ??= this.#end(drain)
    await this.#closed
  }

  async #end(drainMs: number): Promise<void> {
    await this.#calls.allPrepared()
    await this.#parts.coordinator.close(drainMs)
    await this.#parts.draft?.close()
    await this.#grammars.end()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** @internal For tetrad/testing. */
  get [INTERNALS](): EngineInternals {
    return this.#parts
  }
}
