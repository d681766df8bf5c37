// What a model will run on, before anything of it is allocated.
import { availableParallelism } from 'node:os'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import type { RunPlan } from '../../workers/protocol.js'
import { TetradError } from '../errors.js'
import type { AdapterFiles } from '../model/adapters/open-adapter.js'
import type { PackedPlans } from '../model/checkpoint/packed-checkpoint.js'
import { readEndIds } from '../model/end-ids.js'
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.js'
import { AdapterStore } from './adapters/adapter-store.js'
import { adaptersUnsupported } from './adapters/engine-adapters.js'
import type { BackendChoice } from './choose-backend.js'
import { checkMemory } from './memory.js'
import { type OpenModel, planModel, planRun } from './model.js'

export interface PreparedModel {
  readonly dir: string
  readonly model: OpenModel
  readonly plan: RunPlan
  readonly layout: ModelLayout
  readonly plans: PackedPlans
  readonly tokenizer: Tokenizer | undefined
  readonly endIds: readonly number[]
  readonly choice: BackendChoice
  /** Undefined: the backend has no adapters. */
  readonly store: AdapterStore | undefined
  /** Of the option `adapters`, by name. */
  readonly adapterFiles: ReadonlyMap<string, AdapterFiles>
}

/** `available`: bytes. Throws MemoryError if the model needs more, and what Engine.load documents for a model. */
export async function prepareModel(dir: string, model: OpenModel, choice: BackendChoice, available: number): Promise<PreparedModel> {
  const { options } = choice
  const plan = planRun(model, options, availableParallelism(), available)
  const layout = layoutModel(model.lowered.shape, plan)
  const plans = planModel(model, layout)
  const tokenizer = await loadTokenizer(dir, model.config.vocab, model.config.decoder.tokenizer)
  const endIds = await readEndIds(dir, model.config, tokenizer)
  const { maxAdapters: places, maxAdapterRank: rank, adapterBytes: bytes } = options
  const store = plan.backend === 'gpu' ? undefined : new AdapterStore(model, plan, layout, { places, rank, bytes })
  if (!store && Object.keys(options.adapters).length > 0) throw adaptersUnsupported(plan.backend)
  const opened = await store?.open(options.adapters)
  throwIfAborted(options.signal)
  checkMemory(model, options, plan, layout, available - (opened?.bytes ?? 0))
  return { dir, model, plan, layout, plans, tokenizer, endIds, choice, store, adapterFiles: opened?.files ?? new Map() }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'loading was stopped by its signal', remedy: 'Load again when it is wanted.' })
}
