// The public engine: loads a model over ranks, takes prompts, and answers with completions.
import { EventEmitter } from 'node:events'
import { availableParallelism } from 'node:os'
import { layoutModel } from '../../workers/layout/model-layout.js'
import { EngineClosedError, OptionError, OverloadedError, TetradError } from '../errors.js'
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
import { loadWeights } from '../model/checkpoint/load-weights.js'
import { readEndIds } from '../model/end-ids.js'
import { checkInteger, checkNames } from '../options/check.js'
import { type EngineOptions, resolveOptions } from '../options/engine-options.js'
import { type GenerateParams, type ManyParams, resolveParams } from '../options/generate-params.js'
import { loadTokenizer } from '../tokenizer/tokenizer.js'
import { chooseBackend } from './choose-backend.js'
import { type EngineInfo, type EngineInternals, type EngineParts, type EngineStats, engineInfo, engineStats } from './engine-info.js'
import { type Chunk, type Completion, Generation } from './generation.js'
import { availableMemory, checkMemory } from './memory.js'
import { openModel, planModel, planRun } from './model.js'
import { everyLogits, scoreTokens } from './prompt-request.js'
import { emptyPrompt, type Prompt, PromptReader } from './prompts.js'
import type { RestartEvent } from './ranks/coordinator.js'
import type { Profile } from './ranks/profile.js'
import type { Request } from './request.js'
import { loadSnapshot, type SnapshotCache, saveSnapshot } from './snapshot/snapshot.js'
import { snapshotCache } from './snapshot/snapshot-cache.js'
import { allocateMemories, startEngine } from './start-engine.js'
import { startRequests } from './start-requests.js'

/** A chunk of one of several prompts. */
export interface IndexedChunk extends Chunk {
  /** Which prompt it belongs to. */
  readonly index: number
}

export const INTERNALS = Symbol('tetrad internals')

export class Engine implements AsyncDisposable {
  readonly #parts: EngineParts
  readonly #endOfText: ReadonlySet<number>
  readonly #prompts: PromptReader
  #closed: Promise<void> | undefined
  #snapshots: SnapshotCache | undefined
  readonly info: EngineInfo

  private constructor(parts: EngineParts) {
    const { tokenizer } = parts
    this.#parts = parts
    this.#endOfText = new Set(parts.endIds)
    this.info = engineInfo(parts)
    this.#prompts = new PromptReader(tokenizer, this.info)
  }

  /**
   * Loads the model of a directory (config.json, weights, and tokenizer.json if there is one) over ranks.
   * @throws OptionError, CheckpointError, MemoryError, RankError, or TetradError LOAD_ABORTED
   */
  static async load(dir: string, options: EngineOptions = {}): Promise<Engine> {
    const start = performance.now()
    const asked = resolveOptions(options)
    const { backend, ranks, reason: backendReason } = await chooseBackend(asked)
    const resolved = { ...asked, backend, ranks }
    const model = await openModel(dir, resolved.variant)
    const available = availableMemory()
    const plan = planRun(model, resolved, availableParallelism(), available)
    const layout = layoutModel(model.lowered.shape, plan)
    const plans = planModel(model, layout)
    const tokenizer = await loadTokenizer(dir, model.config.vocab)
    const endIds = await readEndIds(dir, model.config, tokenizer)
    throwIfAborted(resolved.signal)
    checkMemory(model, resolved, plan, layout, available)
    const memories = allocateMemories(plan, layout)
    await loadWeights(plans, memories, resolved.onProgress, resolved.signal)
    const events = new EventEmitter<{ restart: [RestartEvent] }>()
    const started = await startEngine(model, plan, layout, memories, resolved, (event) => events.emit('restart', event))
    if (resolved.signal?.aborted) await started.coordinator.close(0)
    throwIfAborted(resolved.signal)
    const maxWaiting = resolved.maxQueue + resolved.maxRunning
    const trained = model.config.contextTokens
    if (plan.contextTokens > trained) {
      process.emitWarning(`the context is ${plan.contextTokens} tokens, and the model was trained for ${trained}: its output beyond may be poor`, {
        type: 'TetradWarning',
        code: 'CONTEXT_BEYOND_TRAINING',
      })
    }
    if (plan.contextTokens < (asked.maxContext ?? 0)) {
      process.emitWarning(`the context is ${plan.contextTokens} tokens, which the cache holds, and not the ${asked.maxContext} of maxContext`, {
        type: 'TetradWarning',
        code: 'CONTEXT_CUT',
      })
    }
    return new Engine({
      model,
      plan,
      layout,
      tokenizer,
      endIds,
      memories,
      events,
      maxWaiting,
      backendReason,
      ...started,
      loadMs: performance.now() - start,
    })
  }

  /**
   * Generates from a text, token ids, or an array of either. Await the result for the completion (an array of them for an
   * array or with `n`, completions of one prompt beside each other), or iterate it for chunks. Both reject with OptionError, RequestError (PROMPT_EMPTY, PROMPT_TOO_LONG,
   * TOKEN_INVALID, TOKENIZER_MISSING, TIMEOUT, NON_FINITE_LOGITS), OverloadedError, RankError or EngineClosedError.
   */
  generate(prompt: Prompt | readonly Prompt[], params: ManyParams): Generation<Completion[], IndexedChunk>
  generate(prompt: Prompt, params?: GenerateParams): Generation
  generate(prompts: readonly Prompt[], params?: GenerateParams): Generation<Completion[], IndexedChunk>
  generate(prompt: Prompt | readonly Prompt[], params: GenerateParams | ManyParams = {}): Generation | Generation<Completion[], IndexedChunk> {
    const requests: Request[] = []
    const control = {
      abort: () => {
        for (const request of requests) request.abort()
      },
      pause: (paused: boolean) => {
        for (const request of requests) request.pause(paused)
      },
    }
    if (!isBatch(prompt) && !('n' in params && params.n !== undefined)) {
      return new Generation<Completion, Chunk>(
        async (push) => this.#start([prompt], params, requests, (_, chunk) => push(chunk)).then(([first]) => first as Completion),
        control,
      )
    }
    return new Generation<Completion[], IndexedChunk>(
      (push) => this.#start(isBatch(prompt) ? prompt : [prompt], params, requests, (index, chunk) => push({ ...chunk, index })),
      control,
    )
  }

  /** Logits after every token: [T, vocab], row t for the token after ids[t]. Rejects as generate does. */
  async logits(ids: readonly number[]): Promise<Float32Array> {
    const prompt = this.#prompts.ids(ids, 0, false)
    this.#admit(1)
    return everyLogits(this.#parts.coordinator, prompt, this.info.vocab)
  }

  /**
   * Log-likelihood of a continuation after a context. Texts are tokenized together: the continuation's tokens are those
   * after the context's own (as in lm-evaluation-harness). Call it as often as you like at once; what contexts have in
   * common is computed once. `bos` puts `<|endoftext|>` before the context, which may be empty then.
   * Rejects as generate does; an aborted signal rejects with REQUEST_ABORTED.
   */
  async loglikelihood(context: Prompt, continuation: Prompt, options: { bos?: boolean; signal?: AbortSignal } = {}): Promise<LogLikelihood> {
    const { bos, signal } = checkEvaluation('loglikelihood', options, ['bos', 'signal'])
    const before = this.#prompts.tokensOf(context)
    // An array and a text can't be tokenized together.
    const all =
      typeof context === 'string' && typeof continuation === 'string'
        ? this.tokenize(context + continuation)
        : [...before, ...this.#prompts.tokensOf(continuation)]
    const prefix = bos ? [this.#prompts.bosId()] : []
    const from = prefix.length + before.length
    const ids = [...prefix, ...all]
    if (from === 0) throw emptyPrompt('the context has no tokens', 'Give one, or pass bos: true.')
    if (ids.length <= from) throw emptyPrompt('the continuation has no tokens of its own', 'Give a longer one.')
    const { logProbabilities, isGreedy } = await this.#score(ids, from, signal)
    return { sum: logProbabilities.reduce((sum, p) => sum + p, 0), perToken: [...logProbabilities], isGreedy }
  }

  /**
   * Perplexity of a file of tokens (headerless little-endian uint16) or an array of them, by the authors' protocol; windows
   * run batched. Rejects with EVAL_DATA_INVALID, REQUEST_ABORTED, or as generate does.
   */
  perplexity(source: string | readonly number[], options: PerplexityOptions = {}): Promise<PerplexityResult> {
    const names = ['blockSize', 'windows', 'firstToken', 'onProgress', 'signal']
    const { contextTokens, vocab } = this.info
    const { signal } = checkEvaluation('perplexity', options, names)
    const count = (name: string, value: number | undefined, min: number, max: number) =>
      value === undefined ? undefined : checkInteger(name, value, min, max, (facts) => new OptionError('OPTION_INVALID', facts))
    const blockSize = count('blockSize', options.blockSize, 1, contextTokens) ?? Math.min(this.#parts.model.config.contextTokens, contextTokens)
    const windows = count('windows', options.windows, 1, Number.MAX_SAFE_INTEGER)
    const firstToken = count('firstToken', options.firstToken, 0, Number.MAX_SAFE_INTEGER) ?? 512
    return perplexity(this.#scorer, source, { blockSize, windows, firstToken, vocab, onProgress: options.onProgress, signal })
  }

  /**
   * Accuracy on multiple-choice items: a JSONL file of {query, choices, gold}, or an array of them. Choices run batched, and
   * a query is computed once for all of its choices. Rejects with EVAL_DATA_INVALID, REQUEST_ABORTED, or as generate does.
   */
  multipleChoice(source: string | readonly MultipleChoiceItem[], options: MultipleChoiceOptions = {}): Promise<MultipleChoiceResult> {
    const { bos, signal } = checkEvaluation('multipleChoice', options, ['bos', 'onProgress', 'signal'])
    const given = { bos, ...(signal && { signal }) }
    const { concurrency } = this.#scorer
    const limited = limiter(concurrency)
    const score = (query: string, choice: string) => limited(() => this.loglikelihood(query, choice, given))
    return multipleChoice(score, concurrency, source, options.onProgress)
  }

  get #scorer(): Scorer {
    return { concurrency: this.#parts.plan.slots, score: (tokens, from, signal) => this.#score(tokens, from, signal) }
  }

  async #score(ids: readonly number[], from: number, signal: AbortSignal | undefined): Promise<TokenScores> {
    const prompt = this.#prompts.ids(ids.slice(0, -1), 0, false)
    const next = this.#prompts.ids(ids.slice(-1), 0, false)[0] as number
    this.#admit(1)
    return scoreTokens(this.#parts.coordinator, prompt, { from, next }, signal)
  }

  /**
   * Writes what is cached of a prompt to a file (computing what is not), to be loaded by an engine of the same model, formats and
   * determinism key at any rank count. The file is there as a whole or not at all. Rejects as generate does, with
   * SnapshotError SNAPSHOT_NO_ROOM, or with TetradError OUTPUT_FAILED.
   */
  async saveSnapshot(prompt: Prompt, path: string): Promise<{ tokens: number; bytes: number }> {
    const cache = this.#snapshotCache()
    const ids = this.#prompts.ids(prompt, 1, false)
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
    this.#admit(0)
    this.#snapshots ??= snapshotCache(this.#parts, this.info)
    return this.#snapshots
  }

  /** Token ids of a text. Throws RequestError TOKENIZER_MISSING. */
  tokenize(text: string): number[] {
    return this.#prompts.tokenize(text)
  }

  /** The text of token ids, special tokens left out; '' without a tokenizer. */
  detokenize(ids: readonly number[]): string {
    return this.#prompts.textOf(ids)
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

  /** 'restart': the ranks failed and were started anew; no request was lost. */
  on(event: 'restart', listener: (event: RestartEvent) => void): this {
    this.#parts.events.on(event, listener)
    return this
  }

  off(event: 'restart', listener: (event: RestartEvent) => void): this {
    this.#parts.events.off(event, listener)
    return this
  }

  /**
   * Takes no more requests, lets the others run for up to drainMs (default 0), rejects the rest with EngineClosedError, and
   * ends the threads. Closing again does nothing more.
   */
  close(options: { drainMs?: number } = {}): Promise<void> {
    const { drainMs } = checkNames('close', options, ['drainMs'])
    const drain = checkInteger('drainMs', drainMs ?? 0, 0, 2 ** 31 - 1, (facts) => new OptionError('OPTION_INVALID', facts))
    this.#closed ??= this.#parts.coordinator.close(drain)
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** For tetrad/testing. */
  get [INTERNALS](): EngineInternals {
    return this.#parts
  }

  /** Starts a request for each prompt, all or none. */
  async #start(
    prompts: readonly Prompt[],
    params: GenerateParams | ManyParams,
    requests: Request[],
    push: (index: number, chunk: Chunk) => void,
  ): Promise<Completion[]> {
    const resolved = resolveParams(params, this.info.vocab)
    const { coordinator, statistics, tokenizer } = this.#parts
    if (resolved.stop.length > 0 && !tokenizer) {
      throw new OptionError('OPTION_INVALID', {
        what: 'stop cannot be used with this model',
        expected: 'a model with a tokenizer',
        actual: 'none',
        remedy: 'Use stopTokenIds.',
      })
    }
    const ids = prompts.map((prompt) => this.#prompts.ids(prompt, 1, resolved.bos))
    const { n = 1 } = resolved
    this.#admit(ids.length * n)
    const context = { coordinator, statistics, tokenizer, endOfText: this.#endOfText }
    return startRequests(context, ids, resolved, requests, push)
  }

  /** Throws if `count` more requests can't be taken now. */
  #admit(count: number): void {
    if (this.#closed) throw new EngineClosedError('ENGINE_CLOSED', { what: 'the engine is closed', remedy: 'Load another one.' })
    const { coordinator, scheduler, statistics, maxWaiting } = this.#parts
    if (coordinator.fatal) throw coordinator.fatal
    const held = scheduler.waiting + scheduler.running
    if (held + count <= maxWaiting) return
    // About when one of the running requests ends.
    const retryAfterMs = Math.max(100, Math.ceil(statistics.requestTime.meanMs / Math.max(1, scheduler.running)))
    throw new OverloadedError(retryAfterMs, {
      what: 'the queue is full',
      expected: `at most ${maxWaiting} requests running and waiting`,
      actual: `${held}, and ${count} more`,
      remedy: `Send it again in about ${retryAfterMs} ms, or raise maxQueue.`,
    })
  }
}

function checkPath(path: unknown): string {
  if (typeof path === 'string' && path !== '') return path
  throw new OptionError('OPTION_INVALID', { what: 'the path of the snapshot is wrong', expected: 'a path', actual: typeof path, remedy: 'Pass one.' })
}

/** An array that is not of numbers is an array of prompts; an empty one is a prompt without tokens. */
function isBatch(prompt: Prompt | readonly Prompt[]): prompt is readonly Prompt[] {
  return Array.isArray(prompt) && prompt.length > 0 && (typeof prompt[0] === 'string' || Array.isArray(prompt[0]))
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'loading was stopped', remedy: 'Load again when it is wanted.' })
}
