// Fields of the mailbox, through which the coordinator gives steps to the ranks and takes their results, and where they lie.
// Only step-buffer.ts reads and writes them.
import { type ModelShape, PAGE_TOKENS, PHASES, type RunPlan, SHARDS, STAGES } from '../protocol.js'

/** What the layout follows from. */
export type MailboxSize = Pick<RunPlan, 'stepRows' | 'slots' | 'pagesPerSlot'> & Pick<ModelShape, 'vocab'>

/** Steps lie in turn (epoch & 1), so that step n + 1 can be published while n runs. */
export const STEP_RING = 2
/** A step: header, rows, then copies of cached rows that are made before them. */
export const STEP_HEADER = { rows: 0, copies: 1, ints: 16 } as const

/** Fields of a copy: the first `rows` cached rows of a page, in every stream and layer. */
export const COPY = { from: 0, to: 1, rows: 2, ints: 4 } as const

/** Fields of a row (one token of one sequence). */
export const ROW = {
  slot: 0,
  position: 1,
  /** Token id, or LAST_SAMPLED: what the previous step sampled for this slot. */
  token: 2,
  flags: 3,
  /** Token id whose probability the row reports. */
  target: 4,
  /** 0: the model alone; n: with the adapter in place n - 1. */
  adapter: 5,
  ints: 8,
} as const

export const LAST_SAMPLED = -1
/** Instead of a sampled token: the row's slot is constrained, and its mask was not there in time. */
export const MASK_MISSED = -2
/** State of a slot's mask in a step. Whoever changes it from `pending` first decides for all ranks. */
export const MASK = { pending: 0, ready: 1, missed: 2 } as const
export const ROW_FLAGS = {
  /** Leave this row's logits in the exchange memory. */
  logits: 1,
  /** Sample the next token from this row's logits. */
  sample: 2,
  /** Leave the log-probability of the target, and the most likely token, in the mailbox. */
  score: 4,
  /** Leave the log-probabilities of the sampled token (of a row that does not sample: the target) and of the most likely ones. */
  logprobs: 8,
  /** Leave this row's logits in the exchange memory, for an observer of all rows. */
  observed: 16,
} as const

/** Sampling parameters of a slot: Float64 values, written before the first step of its sequence. */
export const SLOT = {
  /** 0: only temperature, seed, `choice` and `logprobs` are in use. */
  adjusted: 0,
  /** 0: off. */
  topK: 1,
  /** 1: off, also typicalP. */
  topP: 2,
  minP: 3,
  typicalP: 4,
  /** 1: off. */
  repetitionPenalty: 5,
  presencePenalty: 6,
  frequencyPenalty: 7,
  /** Below this position none of the slot's suppressed ids is sampled. */
  suppressBefore: 8,
  promptLength: 9,
  /** Numbers of entries of logitBias and of suppressed ids. */
  biases: 10,
  suppressed: 11,
  /** Which of several completions of one prompt: selects the random numbers. */
  choice: 12,
  /** How many of the most likely tokens a row with the flag leaves. */
  logprobs: 13,
  /** Penalties are in use: the slot's tokens are in the history. */
  penalized: 14,
  temperature: 15,
  /** Low and high 32 bits, as signed integers. */
  seedLow: 16,
  seedHigh: 17,
  /** A number that no other sequence has had: what is counted for the slot starts anew with it. */
  serial: 18,
  /** Only tokens of the slot's mask are sampled. */
  constrained: 19,
  values: 20,
} as const

export const MAX_BIASES = 1024
/** End ids of a model. */
export const MAX_MODEL_END_IDS = 64
/** End ids of a request: those of the model, and 32 as stopTokenIds. */
export const MAX_SUPPRESSED_IDS = MAX_MODEL_END_IDS + 32
export const MAX_LOGPROBS = 20
/** Float64 values that a row with the flag `logprobs` leaves: its token's, then pairs of id and log-probability. */
export const LOGPROB_VALUES = 1 + 2 * MAX_LOGPROBS

/** Per-rank counters: Float64 values. waitMs has one value per stage, computeMs one per phase. */
export const COUNTERS = {
  shardedWeightBytes: 0,
  replicatedWeightBytes: 1,
  cacheBytes: 2,
  steps: 3,
  stepMs: 4,
  waitMs: 5,
  computeMs: 5 + STAGES.length,
  values: 5 + STAGES.length + PHASES.length,
} as const

export interface MailboxLayout {
  readonly bytes: number
  readonly stepInts: number
  /** Int32 offset of a step's copies, from its first int. */
  readonly copies: number
  /** Int32 offset of the sampled (of a score: most likely) tokens: [STEP_RING][stepRows]. */
  readonly sampled: number
  /** Float64 offset of the scores: [STEP_RING][stepRows]. */
  readonly scores: number
  /** Float64 offset of the logprobs: [STEP_RING][stepRows][LOGPROB_VALUES]. */
  readonly logprobs: number
  /** Float64 offsets of the slots' parameters, [slots][SLOT.values], and biases, [slots][MAX_BIASES]. */
  readonly slotParams: number
  readonly biasValues: number
  /** Int32 offsets of the slots' bias ids, [slots][MAX_BIASES], suppressed ids, [slots][MAX_SUPPRESSED_IDS], tokens, [slots][contextTokens]. */
  readonly biasIds: number
  readonly suppressedIds: number
  readonly history: number
  readonly contextTokens: number
  /** Int32 offsets of the masks, [STEP_RING][slots][maskInts], one bit a token, and of their states, [STEP_RING][slots]. */
  readonly masks: number
  readonly maskInts: number
  readonly maskStates: number
  /** Int32 offset of the block tables: [slots][pagesPerSlot] page numbers. */
  readonly blockTables: number
  /** Byte offset of the counters: [SHARDS][COUNTERS.values]. */
  readonly counters: number
}

export function layoutMailbox({ stepRows, slots, pagesPerSlot, vocab }: MailboxSize): MailboxLayout {
  const contextTokens = pagesPerSlot * PAGE_TOKENS
  const copies = STEP_HEADER.ints + stepRows * ROW.ints
  const stepInts = copies + slots * COPY.ints
  const sampled = STEP_RING * stepInts
  const blockTables = sampled + STEP_RING * stepRows
  const scores = Math.ceil((blockTables + slots * pagesPerSlot) / 2)
  const logprobs = scores + STEP_RING * stepRows
  const slotParams = logprobs + STEP_RING * stepRows * LOGPROB_VALUES
  const biasValues = slotParams + slots * SLOT.values
  const counters = (biasValues + slots * MAX_BIASES) * 8
  const biasIds = counters / 4 + SHARDS * COUNTERS.values * 2
  const suppressedIds = biasIds + slots * MAX_BIASES
  const history = suppressedIds + slots * MAX_SUPPRESSED_IDS
  const maskInts = Math.ceil(vocab / 32)
  const maskStates = history + slots * contextTokens
  const masks = maskStates + STEP_RING * slots
  const bytes = (masks + STEP_RING * slots * maskInts) * 4
  return {
    stepInts,
    copies,
    sampled,
    blockTables,
    scores,
    logprobs,
    slotParams,
    biasValues,
    counters,
    biasIds,
    suppressedIds,
    history,
    contextTokens,
    masks,
    maskInts,
    maskStates,
    bytes,
  }
}
