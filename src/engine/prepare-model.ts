// What a model will run on, before anything of it is allocated.
import { availableParallelism } from 'node:os'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import type { RunPlan } from '../../workers/protocol.js'
import { TetradError } from '../errors.js'
import type { PackedPlans } from '../model/checkpoint/packed-checkpoint.js'
import { readEndIds } from '../model/end-ids.js'
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.js'
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
}

/** `available`: bytes. Throws MemoryError if the model needs more, and what Engine.load documents for a model. */
export async function prepareModel(dir: string, model: OpenModel, choice: BackendChoice, available: number): Promise<PreparedModel> {
  const { options } = choice
  const plan = planRun(model, options, availableParallelism(), available)
  const layout = layoutModel(model.lowered.shape, plan)
  const plans = planModel(model, layout)
  const tokenizer = await loadTokenizer(dir, model.config.vocab, model.config.decoder.tokenizer)
  const endIds = await readEndIds(dir, model.config, tokenizer)
  throwIfAborted(options.signal)
  checkMemory(model, options, plan, layout, available)
  return { dir, model, plan, layout, plans, tokenizer, endIds, choice }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'loading was stopped by its signal', remedy: 'Load again when it is wanted.' })
}
