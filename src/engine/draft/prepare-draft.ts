// What a draft model runs on, beside the model that it guesses for: whether the two fit together, and how large its cache is.
import { availableParallelism } from 'node:os'
import type { CacheFormat } from '../../../kernels/cache-format.js'
import { CACHE_FORMATS } from '../../../kernels/cache-formats.js'
import { PAGE_TOKENS } from '../../../workers/protocol.js'
import { MemoryError } from '../../errors.js'
import { invalidOption } from '../../options/check.js'
import type { ResolvedOptions } from '../../options/engine-options.js'
import { TokenPieces } from '../../tokenizer/token-pieces.js'
import type { Tokenizer } from '../../tokenizer/tokenizer.js'
import { memoryNeed } from '../memory.js'
import { type OpenModel, openModel, planRun } from '../model.js'
import { type PreparedModel, prepareModel } from '../prepare-model.js'

/**
 * One rank on the CPU, beside a model that needs its part of `available` bytes. Its cache holds as many tokens as the model's, and the
 * drafts after them; fewer where a quarter of the memory left is less. Throws OptionError for a model with other tokens, and what
 * Engine.load throws.
 */
export async function prepareDraft(dir: string, target: PreparedModel, available: number): Promise<PreparedModel> {
  const left = available - memoryNeed(target.plan, target.layout).totalBytes
  const model = await openModel(dir)
  checkVocab(dir, model.config.vocab, target.model.config.vocab)
  const automatic = optionsOf(model, target)
  const most = target.plan.pages + target.plan.slots
  const { pages } = planRun(model, automatic, availableParallelism(), left)
  const options = pages > most ? { ...automatic, cacheTokens: most * PAGE_TOKENS } : automatic
  try {
    const prepared = await prepareModel(dir, model, { options, backendReason: 'draft models run on the CPU' }, left)
    checkTokenizer(dir, prepared, target)
    return prepared
  } catch (error) {
    if (!(error instanceof MemoryError)) throw error
    const { code, what, expected, actual } = error
    throw new MemoryError(code, {
      what: `beside its model, the draft model does not fit: ${what}`,
      ...(expected !== undefined && { expected }),
      ...(actual !== undefined && { actual }),
      remedy: 'Choose a smaller draft model, fewer cacheTokens, or omit draft.',
    })
  }
}

/** The model's own, where they fit a draft model: formats, limits, restarts. */
function optionsOf(model: OpenModel, { choice, plan }: PreparedModel): ResolvedOptions {
  const { contextTokens, packed, window = contextTokens } = model.config
  return {
    ...choice.options,
    ranks: 1,
    backend: 'wasm',
    adapter: [],
    adapters: {},
    maxAdapters: 0,
    gpuChecks: false,
    gpuKernels: 'auto',
    partition: 'heads',
    variant: undefined,
    weights: packed ? 'auto' : choice.options.weights,
    cache: cacheOf(model, choice.options.cache),
    maxContext: Math.min(plan.contextTokens, contextTokens, window),
    cacheBytes: undefined,
    cacheTokens: undefined,
    prefillChunk: undefined,
    profile: false,
    onProgress: undefined,
  }
}

function cacheOf(model: OpenModel, wanted: CacheFormat): CacheFormat {
  const { cpu, scaled } = CACHE_FORMATS[wanted]
  return cpu && !(scaled && model.lowered.shape.attention.factors) ? wanted : 'bf16'
}

function checkVocab(dir: string, vocab: number, wanted: number): void {
  if (vocab === wanted) return
  throw invalidOption({
    what: `the draft model ${dir} has another vocabulary than the model`,
    expected: `${wanted} tokens`,
    actual: `${vocab} tokens`,
    remedy: 'Choose a draft model of the same family, or omit draft.',
    option: 'draft',
  })
}

/** Ids are all that the two exchange, so only tokenizers that both know can be compared. */
function checkTokenizer(dir: string, draft: PreparedModel, target: PreparedModel): void {
  if (!draft.tokenizer || !target.tokenizer) return
  const [own, wanted] = [draft.tokenizer, target.tokenizer].map(written) as [Written, Written]
  for (let id = 0; id < target.model.config.vocab; id++) {
    if (own(id) === wanted(id)) continue
    throw invalidOption({
      what: `the tokenizer of the draft model ${dir} is not that of the model`,
      expected: `${wanted(id)} for the id ${id}`,
      actual: own(id),
      remedy: 'Choose a draft model of the same family, or omit draft.',
      option: 'draft',
    })
  }
}

type Written = (id: number) => string

function written(tokenizer: Tokenizer): Written {
  const pieces = new TokenPieces(tokenizer)
  return (id) => {
    const { bytes, special } = pieces.piece(id)
    return special ?? JSON.stringify(Buffer.from(bytes).toString('latin1'))
  }
}
