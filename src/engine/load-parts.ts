// Engine.load, step by step: from a model and options to the parts of a running engine.
import { EventEmitter } from 'node:events'
import { localModel } from '../hub/local-model.js'
import { loadWeights } from '../model/checkpoint/load-weights.js'
import { checkOptions } from '../options/engine-options.js'
import type { EngineOptions } from '../options/public-types.js'
import { EngineAdapters } from './adapters/engine-adapters.js'
import { resolveOptions } from './choose-backend.js'
import { determinismOf } from './determinism.js'
import { DRAFT_TOKENS, DraftModel } from './draft/draft-model.js'
import { prepareDraft } from './draft/prepare-draft.js'
import type { EngineParts } from './engine-info.js'
import { availableMemory } from './memory.js'
import { openModel } from './model.js'
import { type PreparedModel, prepareModel, throwIfAborted } from './prepare-model.js'
import type { RestartEvent } from './ranks/coordinator.js'
import { allocateMemories, startEngine } from './start-engine.js'

/** Throws what Engine.load documents. */
export async function loadParts(given: string, wanted: EngineOptions): Promise<EngineParts> {
  const start = performance.now()
  const checked = checkOptions(wanted)
  const dir = await localModel(given, checked)
  const draftDir = checked.draft === undefined ? undefined : await localModel(checked.draft, checked)
  const choice = await resolveOptions(checked)
  const available = availableMemory()
  const prepared = await prepareModel(dir, await openModel(dir, choice.options.variant), choice, available)
  const draft = draftDir === undefined ? undefined : await prepareDraft(draftDir, prepared, available)
  const parts = await startParts(prepared, start)
  if (!draft) return parts
  try {
    return {
      ...parts,
      draft: new DraftModel(await startParts(draft, start), choice.options.draftTokens ?? DRAFT_TOKENS),
      loadMs: performance.now() - start,
    }
  } catch (error) {
    await parts.coordinator.close(0)
    throw error
  }
}

/** Reads the weights and starts the ranks. */
async function startParts({ plans, choice, store, adapterFiles, ...prepared }: PreparedModel, start: number): Promise<EngineParts> {
  const { model, plan, layout } = prepared
  const { options, backendReason } = choice
  const memories = allocateMemories(plan, layout)
  await loadWeights(plans, memories, options.onProgress, options.signal)
  const events = new EventEmitter<{ restart: [RestartEvent] }>()
  for (const [name, files] of adapterFiles) await store?.load(name, files.dir, files)
  const started = await startEngine(model, plan, layout, memories, store?.shared, options, (event) => events.emit('restart', event))
  if (options.signal?.aborted) await started.coordinator.close(0)
  throwIfAborted(options.signal)
  const instructions = [...new Set(started.coordinator.group.reports.map((report) => report.instructions))].join('+')
  const determinism = await determinismOf(prepared.dir, plan, instructions).catch(async (error) => {
    await started.coordinator.close(0)
    throw error
  })
  warnAboutContext(plan.contextTokens, model.config.contextTokens, options.maxContext)
  return {
    ...prepared,
    memories,
    adapters: new EngineAdapters(store, plan.backend, started.scheduler, started.coordinator),
    events,
    maxRunning: options.maxRunning,
    maxWaiting: options.maxQueue + options.maxRunning,
    backendReason,
    draft: undefined,
    determinism,
    ...started,
    loadMs: performance.now() - start,
  }
}

function warnAboutContext(contextTokens: number, trained: number, asked: number | undefined): void {
  const warn = (text: string, code: string) => process.emitWarning(text, { type: 'TetradWarning', code })
  if (contextTokens > trained) {
    warn(`the context is ${contextTokens} tokens, and the model was trained for ${trained}: its output beyond may be poor`, 'CONTEXT_BEYOND_TRAINING')
  }
  if (contextTokens < (asked ?? 0)) {
    warn(`the context is ${contextTokens} tokens, which is what the cache holds, instead of maxContext ${asked}`, 'CONTEXT_CUT')
  }
}
