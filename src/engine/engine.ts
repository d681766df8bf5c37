// The public engine: loads a model over ranks, turns prompts into sequences and sequences into completions.
import { availableParallelism } from 'node:os'
import type { SharedMemory } from '../../kernels/backend.js'
import { bufferOf, createMemory, prepareBackend, scalarBytes } from '../../kernels/open-space.js'
import { CONTROL_BYTES, layoutMailbox, STEP_RING } from '../../workers/layout.js'
import { layoutModel, type ModelLayout } from '../../workers/model-layout.js'
import type { RankInit, RunPlan } from '../../workers/protocol.js'
import { assetUrl } from '../assets.js'
import { loadWeights } from '../checkpoint/load-weights.js'
import { planShards } from '../checkpoint/shard-plan.js'
import { show } from '../config/check.js'
import { type EngineOptions, type ResolvedOptions, resolveOptions } from '../config/engine-options.js'
import { EngineClosedError, MemoryError, RankError, RequestError, TetradError } from '../errors.js'
import { type GenerateParams, resolveParams, type SamplingParams } from '../sampling/params.js'
import { Detokenizer } from '../tokenizer/detokenizer.js'
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.js'
import { BlockManager } from './block-manager.js'
import { Coordinator } from './coordinator.js'
import { type Chunk, type Completion, Generation } from './generation.js'
import { availableMemory, checkMemory, memoryNeed } from './memory.js'
import { determinismKey, type OpenModel, openModel, planRun } from './model.js'
import { RankGroup } from './rank-group.js'
import { Scheduler } from './scheduler.js'
import { type FinishReason, Sequence } from './sequence.js'

/** What an engine runs. */
export interface EngineInfo {
  readonly variant: string
  readonly parameters: number
  readonly ranks: 1 | 2 | 4
  readonly backend: 'wasm' | 'reference'
  readonly weights: 'f32' | 'bf16'
  readonly cache: 'f32' | 'bf16'
  readonly contextTokens: number
  readonly vocab: number
  readonly hasTokenizer: boolean
  /** Engines with equal keys give equal bits. */
  readonly determinismKey: string
  readonly loadMs: number
}

/** What tetrad/testing may touch. */
export interface EngineInternals {
  readonly model: OpenModel
  readonly plan: RunPlan
  readonly layout: ModelLayout
  readonly coordinator: Coordinator
  readonly group: RankGroup
  readonly blocks: BlockManager
  readonly shards: readonly SharedMemory[]
  readonly exchange: SharedMemory
}

export const INTERNALS = Symbol('tetrad internals')

interface Parts {
  readonly model: OpenModel
  readonly plan: RunPlan
  readonly layout: ModelLayout
  readonly tokenizer: Tokenizer | undefined
  readonly coordinator: Coordinator
  readonly group: RankGroup
  readonly blocks: BlockManager
  readonly shards: readonly SharedMemory[]
  readonly exchange: SharedMemory
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
    this.info = Object.freeze({
      variant: model.variant.name,
      parameters: model.parameters,
      ranks: plan.ranks,
      backend: plan.backend,
      weights: plan.weights,
      cache: plan.cache,
      contextTokens: model.config.block_size,
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
    const model = await openModel(dir)
    const plan = planRun(model, resolved, availableParallelism())
    const layout = layoutModel(model.lowered.shape, plan)
    const plans = planShards(model.checkpoint.tensors, model.lowered, model.variant, layout)
    const tokenizer = await loadTokenizer(dir, model.config.vocab_size)
    throwIfAborted(resolved.signal)
    checkMemory(model, resolved, plan, layout, availableMemory())
    const memories = allocate(plan, layout)
    await loadWeights(plans, memories, resolved.onProgress, resolved.signal)
    const { coordinator, group, blocks } = await startRanks(model, plan, layout, memories, resolved)
    if (resolved.signal?.aborted) await group.close()
    throwIfAborted(resolved.signal)
    const exchange = memories.exchange ?? (memories.ranks[0] as SharedMemory)
    return new Engine({
      model,
      plan,
      layout,
      tokenizer,
      coordinator,
      group,
      blocks,
      shards: memories.shards,
      exchange,
      loadMs: performance.now() - start,
    })
  }

  /**
   * Generates from a text or token ids. Await the result for the completion, or iterate it for chunks; both reject with
   * OptionError, RequestError (PROMPT_EMPTY, PROMPT_TOO_LONG, TOKEN_INVALID, TOKENIZER_MISSING), RankError or
   * EngineClosedError.
   */
  generate(prompt: string | readonly number[], params: GenerateParams = {}): Generation {
    const abort = new AbortController()
    return new Generation(
      async (push) => {
        const resolved = resolveParams(params)
        const ids = this.#promptIds(prompt, 1)
        return this.#run(ids, resolved, abort.signal, push)
      },
      () => abort.abort(),
    )
  }

  /** Logits after every token: [T, vocab], row t for the token after ids[t]. Rejects as generate does. */
  async logits(ids: readonly number[]): Promise<Float32Array> {
    const prompt = this.#promptIds(ids, 0)
    const { vocab } = this.info
    const result = new Float32Array(prompt.length * vocab)
    await new Promise<void>((resolve, reject) => {
      this.#submit(
        new Sequence({
          prompt,
          maxTokens: 0,
          temperature: 0,
          seed: 0,
          endOfText: new Set(),
          everyLogits: true,
          sink: {
            onScheduled: () => {},
            onToken: () => {},
            onLogits: (position, row) => result.set(row, position * vocab),
            onFinish: () => resolve(),
            onError: reject,
          },
        }),
      )
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

  /** Stops the ranks; running requests reject with EngineClosedError. Closing again does nothing more. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      await this.#parts.coordinator.close()
      await this.#parts.group.close()
    })()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** For tetrad/testing. */
  get [INTERNALS](): EngineInternals {
    return this.#parts
  }

  #promptIds(prompt: string | readonly number[], room: number): number[] {
    if (typeof prompt !== 'string' && !Array.isArray(prompt)) {
      throw new RequestError('TOKEN_INVALID', {
        what: 'the prompt is of the wrong type',
        expected: 'a text or an array of token ids',
        actual: show(prompt),
        remedy: 'Pass one of them.',
      })
    }
    const ids = typeof prompt === 'string' ? this.tokenize(prompt) : [...(prompt as readonly number[])]
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
        remedy: 'Shorten the prompt.',
      })
    }
    return ids
  }

  #submit(sequence: Sequence): void {
    if (this.#closed) sequence.sink.onError(new EngineClosedError('ENGINE_CLOSED', { what: 'the engine is closed', remedy: 'Load another one.' }))
    else this.#parts.coordinator.submit(sequence)
  }

  #run(prompt: readonly number[], params: SamplingParams, left: AbortSignal, push: (chunk: Chunk) => void): Promise<Completion> {
    const start = performance.now()
    const detokenizer = new Detokenizer(this.#parts.tokenizer)
    const hasText = this.info.hasTokenizer
    const tokens: number[] = []
    let held: number[] = []
    let text = ''
    let firstAt = 0
    let lastAt = 0
    const emit = (piece: string) => {
      text += piece
      push({ text: piece, tokens: held })
      held = []
    }
    const completion = (finishReason: FinishReason): Completion => ({
      text,
      tokens,
      finishReason,
      usage: { promptTokens: prompt.length, completionTokens: tokens.length },
      timings: {
        ttftMs: tokens.length > 0 ? firstAt - start : 0,
        decodeMs: lastAt - firstAt,
        tokensPerSecond: tokens.length > 1 ? ((tokens.length - 1) / (lastAt - firstAt)) * 1000 : 0,
      },
      seed: params.seed,
    })
    const signal = params.signal ? AbortSignal.any([params.signal, left]) : left
    return new Promise((resolve, reject) => {
      const sequence = new Sequence({
        prompt,
        maxTokens: params.maxTokens,
        temperature: params.temperature,
        seed: params.seed,
        endOfText: params.ignoreEos ? new Set() : this.#endOfText,
        everyLogits: false,
        sink: {
          onScheduled: () => {},
          onLogits: () => {},
          onToken: (token) => {
            lastAt = performance.now()
            if (tokens.length === 0) firstAt = lastAt
            tokens.push(token)
            held.push(token)
            const piece = detokenizer.push(token)
            if (piece !== '' || !hasText) emit(piece)
          },
          onFinish: (reason) => {
            signal.removeEventListener('abort', onAbort)
            const rest = detokenizer.flush()
            if (rest !== '' || held.length > 0) emit(rest)
            resolve(completion(reason))
          },
          onError: (error) => {
            signal.removeEventListener('abort', onAbort)
            reject(error)
          },
        },
      })
      const onAbort = () => this.#parts.coordinator.abort(sequence)
      if (signal.aborted) {
        resolve(completion('abort'))
        return
      }
      signal.addEventListener('abort', onAbort, { once: true })
      this.#submit(sequence)
    })
  }
}

interface EngineMemories {
  readonly shards: readonly SharedMemory[]
  readonly ranks: readonly SharedMemory[]
  /** Undefined at one rank: the exchange regions lie in the rank's memory. */
  readonly exchange: SharedMemory | undefined
}

function allocate(plan: RunPlan, layout: ModelLayout): EngineMemories {
  try {
    return {
      shards: layout.shards.map((shard) => createMemory(plan.backend, shard.bytes)),
      ranks: layout.ranks.map((rank) => createMemory(plan.backend, rank.bytes)),
      exchange: plan.ranks > 1 ? createMemory(plan.backend, layout.exchange.bytes) : undefined,
    }
  } catch (cause) {
    throw new MemoryError('MEMORY_EXHAUSTED', {
      what: 'the memory for the model could not be had',
      expected: `${Math.ceil(memoryNeed(plan, layout).totalBytes / 2 ** 20)} MiB`,
      actual: cause instanceof Error ? cause.message : String(cause),
      remedy: 'Free memory, or choose bf16 weights or cache, or more ranks, or a smaller prefillChunk.',
      cause,
    })
  }
}

/** Barriers spin this often before they park, if every rank has a core: about 20 us. */
const SPINS = 2000

async function startRanks(model: OpenModel, plan: RunPlan, layout: ModelLayout, memories: EngineMemories, options: ResolvedOptions) {
  const control = new SharedArrayBuffer(CONTROL_BYTES)
  const mailbox = new SharedArrayBuffer(layoutMailbox(plan.stepRows, plan.slots, plan.pagesPerSlot).bytes)
  const module = prepareBackend(plan.backend, assetUrl('dist/kernels/wasm/tetrad.wasm'))
  const inits = memories.ranks.map(
    (rankMemory): RankInit => ({
      shape: model.lowered.shape,
      plan,
      module,
      shards: memories.shards,
      rankMemory,
      exchange: memories.exchange,
      mailbox,
      deadlineMs: options.stepDeadlineMs,
      spins: plan.ranks <= availableParallelism() ? SPINS : 0,
    }),
  )
  const blocks = new BlockManager(plan.pages)
  const scheduler = new Scheduler({ stepRows: plan.stepRows, slots: plan.slots, contextTokens: model.config.block_size }, blocks)
  const exchange = bufferOf(memories.exchange ?? (memories.ranks[0] as SharedMemory))
  const rows = layout.exchange.logits.slice(0, STEP_RING)
  const vocab = model.config.vocab_size
  const length = plan.stepRows * vocab
  const logitsAt = (ptr: number) =>
    scalarBytes(plan.backend) === 4 ? new Float32Array(exchange, ptr, length) : new Float64Array(exchange, ptr, length)
  const coordinator = new Coordinator(
    {
      control,
      mailbox,
      ranks: plan.ranks,
      stepRows: plan.stepRows,
      slots: plan.slots,
      pagesPerSlot: plan.pagesPerSlot,
      deadlineMs: options.stepDeadlineMs,
      logits: rows.map(logitsAt),
      vocab,
    },
    scheduler,
  )
  const group = await RankGroup.start(inits, control, (detail) =>
    coordinator.fail(new RankError('RANK_EXITED', { what: detail, remedy: 'Close this engine and load another.' })),
  )
  const odd = group.reports.find((report) => report.backend !== plan.backend)
  if (odd) {
    await group.close()
    throw new RankError('RANK_FAILED', {
      what: 'a rank runs on another backend than was asked for',
      expected: plan.backend,
      actual: odd.backend,
      remedy: 'Choose a backend that all ranks have.',
    })
  }
  coordinator.attach(group)
  return { coordinator, group, blocks }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'loading was stopped', remedy: 'Load again when it is wanted.' })
}
