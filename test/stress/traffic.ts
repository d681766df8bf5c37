// Random traffic of one round: what requests come when, and what goes wrong meanwhile. A function of the seed alone.
import type { EngineOptions, GenerateParams } from '../../src/index.js'
import type { FaultKind, Stage } from '../../src/testing.js'

export type Random = () => number

/** SplitMix32: a stream of numbers in [0, 1) for a seed and a round. */
export function randomOf(seed: number, round: number): Random {
  let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(round + 1, 0x85ebca6b)) >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return ((z ^ (z >>> 16)) >>> 0) / 4294967296
  }
}

export interface Round {
  readonly model: string
  readonly options: EngineOptions
  readonly steps: readonly Step[]
}

export interface PlannedRequest {
  readonly prompt: readonly number[]
  readonly params: GenerateParams & { readonly seed: number }
  /** Tokens after which its signal aborts it; undefined: never. */
  readonly abortAfter: number | undefined
  /** Milliseconds that its reader takes for a chunk; undefined: it is awaited. */
  readonly slowReaderMs: number | undefined
}

/** What happens next: some requests at once, a fault, a snapshot, or a call that is wrong. Then a pause. */
export type Step = { readonly pauseMs: number } & (
  | { readonly kind: 'requests'; readonly requests: readonly PlannedRequest[] }
  | { readonly kind: 'fault'; readonly rank: number; readonly fault: FaultKind; readonly stage: Stage }
  | { readonly kind: 'snapshot'; readonly prompt: readonly number[]; readonly corrupt: number | undefined }
  | { readonly kind: 'malformed'; readonly prompt: unknown; readonly params: unknown }
)

const MODELS = ['mlra_4', 'mla', 'gqa', 'tpa', 'mlra_2_gated', 'gta'] as const
const VOCAB = 160
/** Tokens of a request: two pages, or more than there are shards. */
const CONTEXTS = { short: 128, long: 448 } as const
const FAULTS: readonly FaultKind[] = ['throw', 'exit', 'exit', 'throw', 'slow', 'hang', 'out-of-memory']
const GPU_FAULTS: readonly FaultKind[] = ['throw', 'exit', 'device-lost', 'slow', 'invalid-command']
const STAGES: readonly Stage[] = [
  'start of step',
  'embedding',
  'all-reduce of the attention projection',
  'all-reduce of the MLP',
  'gather of logits',
  'sampling',
]

/** Deadline of a step: what a hanging rank costs. */
export const STEP_DEADLINE_MS = 400

export function planRound(seed: number, round: number, gpu: EngineOptions | undefined): Round {
  const random = randomOf(seed, round)
  const int = (from: number, to: number) => from + Math.floor(random() * (to - from + 1))
  const pick = <T>(from: readonly T[]): T => from[int(0, from.length - 1)] as T
  const chance = (p: number) => random() < p
  const model = pick(MODELS)
  const onGpu = gpu !== undefined && round % 4 === 3
  const ranks = onGpu ? pick([1, 2] as const) : pick([1, 2, 4] as const)
  const context = CONTEXTS[onGpu || chance(0.6) ? 'short' : 'long']
  const isLong = context === CONTEXTS.long
  const options: EngineOptions = {
    ranks,
    maxContext: context,
    partition: onGpu || chance(0.5) ? 'heads' : 'sequence',
    maxRunning: pick([2, 5, 16]),
    maxQueue: pick([8, 64, 256]),
    prefillChunk: pick([7, 33, 64]),
    // Room for a few: others are preempted.
    cacheTokens: pick(isLong ? [512, 1024, 2048] : [256, 512, 2048]),
    maxRestarts: 1000,
    stepDeadlineMs: onGpu ? 20_000 : STEP_DEADLINE_MS,
    ...(onGpu
      ? gpu
      : { cache: pick(model === 'tpa' ? (['f32', 'bf16'] as const) : (['f32', 'bf16', 'int8'] as const)), weights: pick(['auto', 'int8'] as const) }),
  }
  const prefixes = Array.from({ length: 3 }, () => Array.from({ length: int(1, isLong ? 350 : 90) }, () => int(0, VOCAB - 1)))
  const prompt = () => {
    const before = chance(0.6) ? pick(prefixes) : []
    return [...before, ...Array.from({ length: int(1, Math.max(1, context - 28 - before.length)) }, () => int(0, VOCAB - 1))].slice(0, context - 18)
  }
  let requestSeed = 0
  const request = (): PlannedRequest => {
    const maxTokens = int(1, onGpu ? 5 : 16)
    const params = {
      seed: ++requestSeed,
      maxTokens,
      ignoreEos: chance(0.9),
      ...(chance(0.6) && { temperature: 0.2 + 3 * random() }),
      ...(chance(0.2) && { topK: int(1, VOCAB) }),
      ...(chance(0.2) && { topP: 0.1 + 0.9 * random() }),
      ...(chance(0.1) && { minP: 0.3 * random() }),
      ...(chance(0.1) && { typicalP: 0.1 + 0.9 * random() }),
      ...(chance(0.2) && { repetitionPenalty: 0.8 + random() }),
      ...(chance(0.1) && { frequencyPenalty: random() }),
      ...(chance(0.1) && { logitBias: { [int(0, VOCAB - 1)]: 5 * random() } }),
      ...(chance(0.1) && { stopTokenIds: [int(0, VOCAB - 1)] }),
      ...(chance(0.2) && { priority: int(0, 10) }),
      ...(chance(0.1) && { speculate: { ngram: int(1, 3), maxTokens: int(1, 6) } }),
    }
    // A software GPU is slow.
    const tokens = prompt().slice(0, onGpu ? 12 : context - maxTokens)
    return {
      prompt: tokens,
      params,
      abortAfter: chance(0.1) ? int(0, maxTokens) : undefined,
      slowReaderMs: chance(0.05) ? int(1, 10) : undefined,
    }
  }
  const pauseMs = () => (chance(0.3) ? 0 : int(0, 100))
  const step = (): Step => {
    const kind = random()
    if (kind < 0.7)
      return { kind: 'requests', requests: Array.from({ length: onGpu ? int(1, 2) : chance(0.1) ? 40 : int(1, 8) }, request), pauseMs: pauseMs() }
    if (kind < 0.86)
      return { kind: 'fault', rank: int(0, ranks - 1), fault: pick(onGpu ? GPU_FAULTS : FAULTS), stage: pick(STAGES), pauseMs: pauseMs() }
    if (kind < 0.92)
      return { kind: 'snapshot', prompt: prompt().slice(0, onGpu ? 12 : context), corrupt: chance(0.5) ? random() : undefined, pauseMs: pauseMs() }
    return { kind: 'malformed', ...pick(MALFORMED), pauseMs: pauseMs() }
  }
  return { model, options, steps: Array.from({ length: onGpu ? 6 : 30 }, step) }
}

const MALFORMED: readonly { readonly prompt: unknown; readonly params: unknown }[] = [
  { prompt: [], params: {} },
  { prompt: [VOCAB], params: {} },
  { prompt: [1.5], params: {} },
  { prompt: Array(CONTEXTS.long + 1).fill(1), params: {} },
  { prompt: 'a text', params: {} },
  { prompt: null, params: {} },
  { prompt: [1], params: { temperature: -1 } },
  { prompt: [1], params: { topP: 2 } },
  { prompt: [1], params: { nonsense: 1 } },
  { prompt: [1], params: { stop: 'no tokenizer' } },
  { prompt: [1], params: { maxTokens: -1 } },
]
