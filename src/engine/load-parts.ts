// Engine.load, step by step: from a model and options to the parts of a running engine.
import { EventEmitter } from 'node:events'
import { availableParallelism } from 'node:os'
import { layoutModel } from '../../workers/layout/model-layout.js'
import { TetradError } from '../errors.js'
import { localModel } from '../hub/local-model.js'
import { loadWeights } from '../model/checkpoint/load-weights.js'
import { readEndIds } from '../model/end-ids.js'
import { checkOptions } from '../options/engine-options.js'
import type { EngineOptions } from '../options/public-types.js'
import { loadTokenizer } from '../tokenizer/tokenizer.js'
import { resolveOptions } from './choose-backend.js'
import type { EngineParts } from './engine-info.js'
import { availableMemory, checkMemory } from './memory.js'
import { openModel, planModel, planRun } from './model.js'
import type { RestartEvent } from './ranks/coordinator.js'
import { allocateMemories, startEngine } from './start-engine.js'

/** Throws what Engine.load documents. */
export async function loadParts(given: string, wanted: EngineOptions): Promise<EngineParts> {
  const start = performance.now()
  const checked = checkOptions(wanted)
  const dir = await localModel(given, checked)
  const { options, backendReason } = await resolveOptions(checked)
  const model = await openModel(dir, options.variant)
  const available = availableMemory()
  const plan = planRun(model, options, availableParallelism(), available)
  const layout = layoutModel(model.lowered.shape, plan)
  const plans = planModel(model, layout)
  const tokenizer = await loadTokenizer(dir, model.config.vocab, model.config.decoder.tokenizer)
  const endIds = await readEndIds(dir, model.config, tokenizer)
  throwIfAborted(options.signal)
  checkMemory(model, options, plan, layout, available)
  const memories = allocateMemories(plan, layout)
  await loadWeights(plans, memories, options.onProgress, options.signal)
  const events = new EventEmitter<{ restart: [RestartEvent] }>()
  const started = await startEngine(model, plan, layout, memories, options, (event) => events.emit('restart', event))
  if (options.signal?.aborted) await started.coordinator.close(0)
  throwIfAborted(options.signal)
  warnAboutContext(plan.contextTokens, model.config.contextTokens, options.maxContext)
  return {
    dir,
    model,
    plan,
    layout,
    tokenizer,
    endIds,
    memories,
    events,
    maxRunning: options.maxRunning,
    maxWaiting: options.maxQueue + options.maxRunning,
    backendReason,
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

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'loading was stopped by its signal', remedy: 'Load again when it is wanted.' })
}
