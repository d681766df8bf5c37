// Named slots of the control and mailbox buffers. Everything that two threads read of each other has its place here.
import { PAGE_TOKENS, SHARDS } from '../protocol.js'

// Control: Int32 slots. Those that are written by different threads lie on different cache lines (16 slots).
export const CONTROL = {
  /** Epoch of the newest published step. Coordinator writes, ranks wait on it. */
  stepEpoch: 0,
  /** Epoch of the newest step that all ranks ended. The last rank writes it. */
  doneEpoch: 16,
  /** Bumped after doneEpoch or abort has changed; the coordinator waits on it. */
  attention: 17,
  /** 0, or 1 + the rank whose failure ended the step. Set once by compare-exchange; the coordinator clears it. */
  abort: 32,
  /** Ranks inside the current barrier. */
  arrived: 48,
  /** Bumped by the last arrival; ranks wait on it. */
  generation: 64,
  /** Ranks that have taken their attach task. */
  attached: 80,
  /** Per rank: rankSlots slots from here. */
  ranks: 96,
} as const

export const RANK_SLOTS = 16
/** Within a rank's slots. */
export const RANK = {
  /** Barriers entered since attaching: a rank with a smaller count than another is the late one. */
  barriers: 0,
  /** Index into SITES. */
  site: 1,
  /** Epoch of the newest step that this rank ended, well or not. */
  done: 2,
  /** 0, or a fault to act on: 1 + its kind, plus 16 times its site (tetrad/testing). A busy rank does not serve its port. */
  fault: 3,
  /** Sites that this rank has come to: it grows as long as the rank gets on. */
  progress: 4,
} as const

export const CONTROL_BYTES = (CONTROL.ranks + SHARDS * RANK_SLOTS) * 4

export function rankSlot(rank: number, slot: number): number {
  return CONTROL.ranks + rank * RANK_SLOTS + slot
}

// Mailbox: two steps in turn (epoch & 1), so that step n + 1 can be published while n runs.
export const STEP_RING = 2
/** A step: header, rows, then copies of cached rows that come before them. */
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
  /** float32 bits. */
  temperature: 4,
  seedLow: 5,
  seedHigh: 6,
  /** Token id whose probability the row asks for. */
  target: 7,
  ints: 8,
} as const

export const LAST_SAMPLED = -1
export const ROW_FLAGS = {
  /** Leave this row's logits in the exchange memory. */
  logits: 1,
  /** Sample the next token from this row's logits. */
  sample: 2,
  /** Leave the logarithm of the target's probability, and the most likely token, in the mailbox. */
  score: 4,
  /** Leave the logarithms of the probabilities of the sampled token (or, of a row that does not sample, the target) and the slot's most likely ones. */
  logprobs: 8,
} as const

/** Sampling parameters of a slot: Float64 values, written before the first step of its sequence. */
export const SLOT = {
  /** 0: none of them (but `choice` and `logprobs`) is in use. */
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
  /** Below this position no id of the slot's `forbidden` is sampled. */
  firstEnd: 8,
  promptLength: 9,
  biases: 10,
  forbidden: 11,
  /** Of the random numbers: which of several completions of one prompt. */
  choice: 12,
  /** Most likely tokens that a row with the flag leaves. */
  logprobs: 13,
  /** Penalties are in use: the slot's tokens are in the history. */
  penalized: 14,
  values: 16,
} as const

/** Most entries of a request's logitBias, end ids, and logprobs. */
export const MOST_BIASES = 1024
/** Of a model. A request may name 32 more as stopTokenIds. */
export const MAX_MODEL_END_IDS = 64
export const MAX_END_IDS = MAX_MODEL_END_IDS + 32
export const MOST_LOGPROBS = 20
/** Float64 values that a row with the flag `logprobs` leaves: its token's, then pairs of id and logarithm. */
export const LOGPROB_VALUES = 1 + 2 * MOST_LOGPROBS

/** Per-rank counters: Float64 values, written by the rank at the end of a step; waitMs has one value per site, computeMs one per phase. */
export const COUNTERS = {
  shardedWeightBytes: 0,
  replicatedWeightBytes: 1,
  cacheBytes: 2,
  steps: 3,
  stepMs: 4,
  waitMs: 8,
  computeMs: 18,
  values: 24,
} as const

export interface MailboxLayout {
  readonly bytes: number
  readonly stepInts: number
  /** Int32 offset of a step's copies, from its first int. */
  readonly copies: number
  /** Int32 offset of the sampled (or, for a score, most likely) tokens: [STEP_RING][stepRows]. */
  readonly sampled: number
  /** Float64 offset of the scores: [STEP_RING][stepRows]. */
  readonly scores: number
  /** Float64 offset of the logprobs: [STEP_RING][stepRows][LOGPROB_VALUES]. */
  readonly logprobs: number
  /** Float64 offset of the slots' parameters: [slots][SLOT.values]; and of their biases: [slots][MOST_BIASES]. */
  readonly slotParams: number
  readonly biasValues: number
  /** Int32 offsets of the slots' bias ids, [slots][MOST_BIASES], end ids, [slots][MAX_END_IDS], and tokens, [slots][contextTokens]. */
  readonly biasIds: number
  readonly endIds: number
  readonly history: number
  readonly contextTokens: number
  /** Int32 offset of the block tables: [slots][pagesPerSlot] page numbers. */
  readonly blockTables: number
  /** Byte offset of the counters: [SHARDS][COUNTERS.values]. */
  readonly counters: number
}

export function layoutMailbox(stepRows: number, slots: number, pagesPerSlot: number): MailboxLayout {
  const contextTokens = pagesPerSlot * PAGE_TOKENS
  const copies = STEP_HEADER.ints + stepRows * ROW.ints
  const stepInts = copies + slots * COPY.ints
  const sampled = STEP_RING * stepInts
  const blockTables = sampled + STEP_RING * stepRows
  const scores = Math.ceil((blockTables + slots * pagesPerSlot) / 2)
  const logprobs = scores + STEP_RING * stepRows
  const slotParams = logprobs + STEP_RING * stepRows * LOGPROB_VALUES
  const biasValues = slotParams + slots * SLOT.values
  const counters = (biasValues + slots * MOST_BIASES) * 8
  const biasIds = counters / 4 + SHARDS * COUNTERS.values * 2
  const endIds = biasIds + slots * MOST_BIASES
  const history = endIds + slots * MAX_END_IDS
  const bytes = (history + slots * contextTokens) * 4
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
    endIds,
    history,
    contextTokens,
    bytes,
  }
}
