// What a rank of any backend has: its layout, its memories opened for the CPU's kernels, its side of the mailbox, its collectives.
import type { KernelBackend, SharedMemory } from '../kernels/backend.js'
import { openBackend } from '../kernels/open-backend.js'
import type { Collectives } from './collectives/collectives.js'
import { type Exchange, openExchange } from './collectives/exchange.js'
import { ShardWork } from './cpu/shard-work.js'
import { layoutModel, type ModelLayout } from './layout/model-layout.js'
import type { RankLayout } from './layout/rank-layout.js'
import { type RankCounterSlots, StepBuffer, type StepReader } from './mailbox/step-buffer.js'
import type { ProfileRecorder } from './profile/profile-recorder.js'
import type { RankInit } from './protocol.js'
import { StepResults } from './sampling/step-results.js'
import { TokenInputs } from './token-inputs.js'

export interface RankParts {
  readonly rank: number
  readonly init: RankInit
  /** Of all ranks. */
  readonly model: ModelLayout
  /** Of this rank. */
  readonly layout: RankLayout
  /** Kernels over the rank's memory. */
  readonly kernels: KernelBackend
  /** All four; a rank reads another's only for what is replicated. */
  readonly shards: readonly ShardWork[]
  readonly exchange: Exchange
  readonly collectives: Collectives
  readonly step: StepReader
  readonly results: StepResults
  readonly inputs: TokenInputs
  readonly counters: RankCounterSlots
  readonly recorder: ProfileRecorder | undefined
}

/** `open`: kernels over a memory. Throws RangeError for a rank that the plan does not have. */
export function openRank(
  rank: number,
  init: RankInit,
  collectives: Collectives,
  recorder: ProfileRecorder | undefined,
  open: (memory: SharedMemory, model: ModelLayout) => KernelBackend = (memory) => openBackend(init.module, memory),
): RankParts {
  const { shape, plan } = init
  const model = layoutModel(shape, plan)
  const layout = model.ranks[rank]
  if (!layout) throw new RangeError(`no rank ${rank} in a plan for ${plan.ranks}`)
  const kernels = open(init.rankMemory, model)
  const shards = model.shards.map((shard, s) => {
    const memory = init.shards[s]
    if (!memory) throw new RangeError(`no memory for shard ${s}`)
    return new ShardWork(open(memory, model), shard, shape, s, rank)
  })
  const exchange = openExchange(shape, model.exchange, init.exchange ? open(init.exchange, model) : kernels, rank, layout.shards)
  const mailbox = new StepBuffer(init.mailbox, { ...plan, vocab: shape.vocab })
  const step = mailbox.reader()
  const results = new StepResults(rank, plan, shape.vocab, step, exchange)
  const inputs = new TokenInputs(shape, shards)
  return { rank, init, model, layout, kernels, shards, exchange, collectives, step, results, inputs, counters: mailbox.counterSlots(rank), recorder }
}
