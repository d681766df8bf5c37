// Builds what runs a loaded model: memories, scheduler, coordinator, and the ranks over them.
import { availableParallelism } from 'node:os'
import type { SharedMemory } from '../../kernels/backend.js'
import { bufferOf, createMemory, prepareBackend, scalarBytes } from '../../kernels/open-backend.js'
import type { ModelLayout } from '../../workers/layout/model-layout.js'
import { pageClasses } from '../../workers/layout/partition.js'
import { CONTROL_BYTES } from '../../workers/mailbox/control.js'
import { STEP_RING } from '../../workers/mailbox/mailbox-layout.js'
import { StepBuffer } from '../../workers/mailbox/step-buffer.js'
import type { AdapterMemory, RankInit, RunPlan } from '../../workers/protocol.js'
import { assetUrl } from '../assets.js'
import { MemoryError, RankError } from '../errors.js'
import type { ResolvedOptions } from '../options/engine-options.js'
import { memoryNeed } from './memory.js'
import type { OpenModel } from './model.js'
import { Coordinator, type RestartEvent } from './ranks/coordinator.js'
import { Profiler } from './ranks/profile.js'
import { RankGroup } from './ranks/rank-group.js'
import { Statistics } from './ranks/statistics.js'
import { PageAllocator } from './scheduling/page-allocator.js'
import { fixedPace, MeasuredPace } from './scheduling/prompt-pace.js'
import { Scheduler } from './scheduling/scheduler.js'

export interface EngineMemories {
  readonly shards: readonly SharedMemory[]
  readonly ranks: readonly SharedMemory[]
  /** Undefined at one rank: the exchange regions lie in the rank's memory. */
  readonly exchange: SharedMemory | undefined
}

/** Throws MemoryError MEMORY_EXHAUSTED. */
export function allocateMemories(plan: RunPlan, layout: ModelLayout): EngineMemories {
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
      remedy: 'Free memory, or choose bf16 weights or cache, or fewer cacheTokens, or a smaller prefillChunk.',
      cause,
    })
  }
}

/** Where the logits of each ring index lie. */
export function exchangeBuffer(memories: EngineMemories): SharedArrayBuffer {
  return bufferOf(memories.exchange ?? (memories.ranks[0] as SharedMemory))
}

/** Barriers look at most this often before they park, if every rank has a core: about 300 us. See Collectives. */
export const SPINS = 30_000

export async function startEngine(
  model: OpenModel,
  plan: RunPlan,
  layout: ModelLayout,
  memories: EngineMemories,
  adapters: AdapterMemory | undefined,
  options: ResolvedOptions,
  onRestart: (event: RestartEvent) => void,
): Promise<{ coordinator: Coordinator; scheduler: Scheduler; allocator: PageAllocator; statistics: Statistics; profiler: Profiler | undefined }> {
  const control = new SharedArrayBuffer(CONTROL_BYTES)
  const mailbox = StepBuffer.allocate({ ...plan, vocab: model.config.vocab })
  const module = prepareBackend(plan.backend, plan.simd, assetUrl('dist/kernels/wasm/'))
  const profiler = options.profile ? new Profiler(plan.ranks) : undefined
  const inits = memories.ranks.map(
    (rankMemory, rank): RankInit => ({
      shape: model.lowered.shape,
      plan,
      module,
      shards: memories.shards,
      rankMemory,
      exchange: memories.exchange,
      adapters,
      mailbox,
      deadlineMs: options.stepDeadlineMs,
      profile: profiler?.buffers[rank],
      spins: plan.ranks <= availableParallelism() ? SPINS : 0,
    }),
  )
  const { vocab } = model.config
  const allocator = new PageAllocator(plan.pages, pageClasses(plan.partition))
  const chunk = plan.stepRows - plan.slots
  const pace = plan.backend === 'gpu' && options.prefillChunk === undefined ? new MeasuredPace(chunk) : fixedPace(chunk)
  const scheduler = new Scheduler({ pace, slots: plan.slots, contextTokens: plan.contextTokens }, allocator)
  const statistics = new Statistics()
  const exchange = exchangeBuffer(memories)
  const length = plan.stepRows * vocab
  const logitsAt = (ptr: number) =>
    scalarBytes(plan.backend) === 4 ? new Float32Array(exchange, ptr, length) : new Float64Array(exchange, ptr, length)
  const coordinator = new Coordinator(
    {
      control,
      mailbox,
      plan,
      deadlineMs: options.stepDeadlineMs,
      logits: layout.exchange.logits.slice(0, STEP_RING).map(logitsAt),
      vocab,
      startRanks: (onExit) => startRanks(plan, inits, control, onExit),
      maxRestarts: options.maxRestarts,
      restartWindowMs: options.restartWindowMs,
      cacheInRanks: plan.backend === 'gpu',
      onRestart,
      recorder: profiler?.coordinator,
    },
    scheduler,
    statistics,
  )
  await coordinator.start()
  return { coordinator, scheduler, allocator, statistics, profiler }
}

/** Starts the threads, and makes sure that each has what was asked for. */
async function startRanks(
  plan: RunPlan,
  inits: readonly RankInit[],
  control: SharedArrayBuffer,
  onExit: (detail: string) => void,
): Promise<RankGroup> {
  const group = await RankGroup.start(inits, control, onExit)
  const odd = group.reports.find((report) => report.backend !== plan.backend)
  if (!odd) return group
  await group.close()
  throw new RankError('RANK_FAILED', {
    what: 'a rank runs on another backend than was asked for',
    expected: plan.backend,
    actual: odd.backend,
    remedy: 'Choose a backend that all ranks have.',
  })
}
