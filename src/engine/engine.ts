// The public engine: loads a model over ranks, takes prompts, and answers with completions.
import { EventEmitter } from 'node:events'
import { availableParallelism } from 'node:os'
import { layoutModel, type ModelLayout } from '../../workers/model-layout.js'
import { PAGE_TOKENS, type RunPlan } from '../../workers/protocol.js'
import { loadWeights } from '../checkpoint/load-weights.js'
import { planShards } from '../checkpoint/shard-plan.js'
import { checkInteger, checkNames, show } from '../config/check.js'
import { type EngineOptions, resolveOptions } from '../config/engine-options.js'
import { EngineClosedError, OptionError, OverloadedError, RequestError, TetradError } from '../errors.js'
import { type GenerateParams, resolveParams } from '../sampling/params.js'
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.js'
import type { BlockManager } from './block-manager.js'
import type { Coordinator, RestartEvent } from './coordinator.js'
import { type Chunk, type Completion, Generation } from './generation.js'
import type { RankCounters } from './mailbox.js'
import { availableMemory, checkMemory, memoryNeed } from './memory.js'
import { determinismKey, type OpenModel, openModel, planRun } from './model.js'
import { Request } from './request.js'
import type { Scheduler } from './scheduler.js'
import { Sequence } from './sequence.js'
import { allocateMemories, type EngineMemories, startEngine } from './start-engine.js'
import type { HistogramData, Statistics } from './statistics.js'

/** What an engine runs. */
export interface EngineInfo {
  readonly variant: string
  readonly parameters: number
  readonly ranks: 1 | 2 | 4
  readonly backend: 'wasm' | 'reference'
  readonly weights: 'f32' | 'bf16'
  readonly cache: 'f32' | 'bf16'
  /** Most tokens of a request, prompt and output: the model's block_size, or what the cache holds if that is less. */
  readonly contextTokens: number
  /** Tokens that the cache holds, all requests together. */
  readonly cacheTokens: number
  /** Memory of weights, cache and buffers, all ranks together. */
  readonly memoryBytes: number
  readonly vocab: number
  readonly hasTokenizer: boolean
  /** Engines with equal keys give equal bits. */
  readonly determinismKey: string
  readonly loadMs: number
}

/** Counters since loading; histograms in milliseconds. */
export interface EngineStats {
  readonly queued: number
  readonly running: number
  readonly finished: number
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly generatedTokens: number
  /** Over the last ten seconds. */
  readonly tokensPerSecond: number
  readonly ttft: HistogramData
  readonly timePerToken: HistogramData
  readonly requestTime: HistogramData
  /** Of the main thread, per step. */
  readonly scheduling: HistogramData
  readonly pages: { readonly all: number; readonly inUse: number; readonly cached: number }
  readonly preemptions: number
  readonly restarts: number
  readonly ranks: readonly RankCounters[]
}

/** A chunk of one of several prompts. */
export interface IndexedChunk extends Chunk {
  /** Which prompt it belongs to. */
  readonly index: number
}

export type Prompt = string | readonly number[]

/** What tetrad/testing may touch. */
export interface EngineInternals {
  readonly model: OpenModel
  readonly plan: RunPlan
  readonly layout: ModelLayout
  readonly coordinator: Coordinator
  readonly blocks: BlockManager
  readonly memories: EngineMemories
}

export const INTERNALS = Symbol('tetrad internals')

interface Parts extends EngineInternals {
  readonly tokenizer: Tokenizer | undefined
  readonly scheduler: Scheduler
  readonly statistics: Statistics
  readonly maxWaiting: number
  readonly events: EventEmitter<{ restart: [RestartEvent] }>
  readonly loadMs: number
}

export class Engine implements AsyncDisposable {
  readonly #parts: Parts
  readonly #endOfText: ReadonlySet<number>
  #closed: Promise<void> | undefined
  readonly info: EngineInfo

  private constructor(parts: Parts) {
    const { model, plan, tokenizer } = parts
    this.#parts = parts
    const fromTokenizer = tokenizer?.endOfText === undefined ? [] : [tokenizer.endOfText]
    this.#endOfText = new Set(model.config.eosTokenIds ?? fromTokenizer)
    const cacheTokens = plan.pages * PAGE_TOKENS
    this.info = Object.freeze({
      variant: model.variant.name,
      parameters: model.parameters,
      ranks: plan.ranks,
      backend: plan.backend,
      weights: plan.weights,
      cache: plan.cache,
      contextTokens: Math.min(model.config.block_size, cacheTokens),
      cacheTokens,
      memoryBytes: memoryNeed(plan, parts.layout).totalBytes,
      vocab: model.config.vocab_size,
      hasTokenizer: tokenizer !== undefined,
      determinismKey: determinismKey(plan),
      loadMs: parts.loadMs,
    })
  }

  /**
   * Loads the model of a directory (config.json, weights, and tokenizer.json if there is one) over ranks.
   * @throws OptionError, CheckpointError, MemoryError, RankError, or TetradError LOAD_ABORTED
   */
  static async load(dir: string, options: EngineOptions = {}): Promise<Engine> {
    const start = performance.now()
    const resolved = resolveOptions(options)
    const model = await openModel(dir, resolved.variant)
    const available = availableMemory()
    const plan = planRun(model, resolved, availableParallelism(), available)
    const layout = layoutModel(model.lowered.shape, plan)
    const plans = planShards(model.checkpoint.tensors, model.lowered, model.variant, layout)
    const tokenizer = await loadTokenizer(dir, model.config.vocab_size)
    throwIfAborted(resolved.signal)
    checkMemory(model, resolved, plan, layout, available)
    const memories = allocateMemories(plan, layout)
    await loadWeights(plans, memories, resolved.onProgress, resolved.signal)
    const events = new EventEmitter<{ restart: [RestartEvent] }>()
    const started = await startEngine(model, plan, layout, memories, resolved, (event) => events.emit('restart', event))
    if (resolved.signal?.aborted) await started.coordinator.close(0)
    throwIfAborted(resolved.signal)
    const maxWaiting = resolved.maxQueue + resolved.maxRunning
    return new Engine({ model, plan, layout, tokenizer, memories, events, maxWaiting, ...started, loadMs: performance.now() - start })
  }

  /**
   * Generates from a text, token ids, or an array of either. Await the result for the completion (an array of them for an
   * array), or iterate it for chunks. Both reject with OptionError, RequestError (PROMPT_EMPTY, PROMPT_TOO_LONG,
   * TOKEN_INVALID, TOKENIZER_MISSING, TIMEOUT, NON_FINITE_LOGITS), OverloadedError, RankError or EngineClosedError.
   */
  generate(prompt: Prompt, params?: GenerateParams): Generation
  generate(prompts: readonly Prompt[], params?: GenerateParams): Generation<Completion[], IndexedChunk>
  generate(prompt: Prompt | readonly Prompt[], params: GenerateParams = {}): Generation | Generation<Completion[], IndexedChunk> {
    const requests: Request[] = []
    const control = {
      abort: () => {
        for (const request of requests) request.abort()
      },
      pause: (paused: boolean) => {
        for (const request of requests) request.pause(paused)
      },
    }
    if (!isBatch(prompt)) {
      return new Generation<Completion, Chunk>(
        async (push) => this.#start([prompt], params, requests, (_, chunk) => push(chunk)).then(([first]) => first as Completion),
        control,
      )
    }
    return new Generation<Completion[], IndexedChunk>(
      (push) => this.#start(prompt, params, requests, (index, chunk) => push({ ...chunk, index })),
      control,
    )
  }

  /** Logits after every token: [T, vocab], row t for the token after ids[t]. Rejects as generate does. */
  async logits(ids: readonly number[]): Promise<Float32Array> {
    const prompt = this.#promptIds(ids, 0)
    this.#admit(1)
    const { vocab } = this.info
    const result = new Float32Array(prompt.length * vocab)
    await new Promise<void>((resolve, reject) => {
      const sequence = new Sequence({
        prompt,
        maxTokens: 0,
        temperature: 0,
        seed: 0,
        endOfText: new Set(),
        everyLogits: true,
        priority: 0,
        sink: {
          onAdmitted: () => {},
          onToken: () => {},
          onScore: () => {},
          onLogits: (position, row) => result.set(row, position * vocab),
          onFinish: () => resolve(),
          onError: reject,
        },
      })
      this.#parts.coordinator.submit(sequence)
    })
    return result
  }

  /** Token ids of a text. Throws RequestError TOKENIZER_MISSING. */
  tokenize(text: string): number[] {
    const { tokenizer } = this.#parts
    if (tokenizer) return tokenizer.encode(text)
    throw new RequestError('TOKENIZER_MISSING', {
      what: 'this model has no tokenizer.json',
      expected: 'token ids',
      actual: 'a text',
      remedy: 'Give the prompt as token ids.',
    })
  }

  /** What the engine is doing and has done. */
  stats(): EngineStats {
    const { scheduler, statistics, blocks, coordinator, plan } = this.#parts
    return {
      queued: scheduler.waiting,
      running: scheduler.running,
      finished: statistics.finished,
      promptTokens: statistics.promptTokens,
      cachedTokens: statistics.cachedTokens,
      generatedTokens: statistics.generatedTokens,
      tokensPerSecond: statistics.tokensPerSecond(performance.now()),
      ttft: statistics.ttft.data(),
      timePerToken: statistics.timePerToken.data(),
      requestTime: statistics.requestTime.data(),
      scheduling: statistics.scheduling.data(),
      pages: { all: blocks.pages, inUse: blocks.pages - blocks.freePages, cached: blocks.cachedPages },
      preemptions: scheduler.preemptions,
      restarts: statistics.restarts,
      ranks: Array.from({ length: plan.ranks }, (_, rank) => coordinator.counters(rank)),
    }
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
    params: GenerateParams,
    requests: Request[],
    push: (index: number, chunk: Chunk) => void,
  ): Promise<Completion[]> {
    const resolved = resolveParams(params)
    const ids = prompts.map((prompt) => this.#promptIds(prompt, 1))
    this.#admit(ids.length)
    const { coordinator, statistics, tokenizer } = this.#parts
    const context = { coordinator, statistics, tokenizer, endOfText: this.#endOfText }
    for (const [index, prompt] of ids.entries()) requests.push(new Request(context, prompt, resolved, (chunk) => push(index, chunk)))
    for (const request of requests) request.start()
    const settled = await Promise.allSettled(requests.map((request) => request.completion))
    return settled.map((result) => {
      if (result.status === 'rejected') throw result.reason
      return result.value
    })
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

  #promptIds(prompt: Prompt, room: number): number[] {
    if (typeof prompt !== 'string' && !Array.isArray(prompt)) {
      throw new RequestError('TOKEN_INVALID', {
        what: 'the prompt is of the wrong type',
        expected: 'a text or an array of token ids',
        actual: show(prompt),
        remedy: 'Pass one of them.',
      })
    }
    const ids = typeof prompt === 'string' ? this.tokenize(prompt) : [...prompt]
    const { vocab, contextTokens } = this.info
    if (ids.length === 0) {
      throw new RequestError('PROMPT_EMPTY', {
        what: 'the prompt has no tokens',
        expected: 'at least one',
        actual: 'none',
        remedy: 'Give a text or token ids.',
      })
    }
    const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocab)
    if (bad >= 0) {
      throw new RequestError('TOKEN_INVALID', {
        what: `token ${bad} of the prompt is not in the vocabulary`,
        expected: `an integer from 0 to ${vocab - 1}`,
        actual: show(ids[bad]),
        remedy: "Use this model's tokenizer.",
      })
    }
    if (ids.length + room > contextTokens) {
      throw new RequestError('PROMPT_TOO_LONG', {
        what: 'the prompt does not fit the context',
        expected: `at most ${contextTokens - room} tokens`,
        actual: `${ids.length}`,
        remedy: contextTokens < this.#parts.model.config.block_size ? 'Shorten the prompt, or load with more cacheTokens.' : 'Shorten the prompt.',
      })
    }
    return ids
  }
}

/** An array that is not of numbers is an array of prompts; an empty one is a prompt without tokens. */
function isBatch(prompt: Prompt | readonly Prompt[]): prompt is readonly Prompt[] {
  return Array.isArray(prompt) && prompt.length > 0 && (typeof prompt[0] === 'string' || Array.isArray(prompt[0]))
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'loading was stopped', remedy: 'Load again when it is wanted.' })
}
