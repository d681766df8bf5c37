// tetrad convert: loads a checkpoint into packed memories as Engine.load would, and writes those to disk.

import { open, rename, rm, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { bufferOf } from '../../kernels/open-backend.js'
import type { WeightFormat } from '../../kernels/weight-format.js'
import { WEIGHT_FORMAT_NAMES } from '../../kernels/weight-formats.js'
import { layoutModel } from '../../workers/layout/model-layout.js'
import { availableMemory, checkMemory } from '../engine/memory.js'
import { openModel, planModel, planRun } from '../engine/model.js'
import { allocateMemories } from '../engine/start-engine.js'
import { CheckpointError, TetradError } from '../errors.js'
import { localModel } from '../hub/local-model.js'
import { loadWeights } from '../model/checkpoint/load-weights.js'
import { packedMatrices, rankOwnedTensors } from '../model/checkpoint/packed-checkpoint.js'
import { PACKED_VERSION } from '../model/checkpoint/packed-version.js'
import { safetensorsHeader } from '../model/checkpoint/safetensors-header.js'
import { elements, STORED_BYTES, type TensorSource } from '../model/checkpoint/tensor-source.js'
import { readModelConfigFile } from '../model/model-config.js'
import { readModelFile } from '../model/model-files.js'
import { checkNames, checkOneOf, checkSignal, invalidOption } from '../options/check.js'
import { checkOptions, resolveFor } from '../options/engine-options.js'
import type { LoadProgress } from '../options/public-types.js'
import { keptBytes, keptType } from './kept-tensor.js'
import { checkOutput, outputFailed } from './synth/output-directory.js'

/** Options of convert. */
export interface ConvertOptions {
  /** Format of the packed weights. */
  weights: WeightFormat
  /** Attention variant, where the keys do not tell it. */
  variant?: string
  onProgress?: (progress: LoadProgress) => void
  /** Stops the conversion and removes what was written. */
  signal?: AbortSignal
}

/** What convert wrote. */
export interface ConvertResult {
  readonly dir: string
  readonly variant: string
  readonly weights: WeightFormat
  /** Size of the weight file. */
  readonly bytes: number
}

const COPY_BYTES = 4 << 20

/**
 * Writes `out`/model.safetensors in packed form, `out`/config.json, and tokenizer.json if there is one. Never overwrites a model.
 * The same bits come out of it as of the original with the same `weights`.
 * @throws OptionError, CheckpointError, MemoryError, TetradError OUTPUT_EXISTS, OUTPUT_FAILED or LOAD_ABORTED
 */
export async function convert(given: string, out: string, options: ConvertOptions): Promise<ConvertResult> {
  const o = checkNames('convert', options, ['weights', 'variant', 'onProgress', 'signal'])
  const weights = checkOneOf('weights', o.weights as string, WEIGHT_FORMAT_NAMES, invalidOption)
  const signal = checkSignal(o.signal)
  const dir = await localModel(given, { signal })
  const engineOptions = { weights, ranks: 1 as const, cacheTokens: 64, maxRunning: 1, prefillChunk: 1 }
  const resolved = resolveFor('wasm', checkOptions(options.variant === undefined ? engineOptions : { ...engineOptions, variant: options.variant }))
  const model = await openModel(dir, resolved.variant)
  if (model.config.packed) {
    throw invalidOption({
      what: `${dir} is converted already`,
      expected: 'an original checkpoint',
      actual: `packed ${model.config.packed.weights}`,
      remedy: 'Convert the original.',
    })
  }
  const available = availableMemory()
  const plan = planRun(model, resolved, availableParallelism(), available)
  const layout = layoutModel(model.lowered.shape, plan)
  const plans = planModel(model, layout)
  checkMemory(model, resolved, plan, layout, available)

  const matrices = packedMatrices(layout)
  const originals = rankOwnedTensors(plans.tensors).map(({ source }) => source)
  for (const { name } of originals) refuseView(model.checkpoint.tensors.get(name))
  const { header, dataBytes } = safetensorsHeader(
    [
      ...matrices.map(({ name, matrix }) => ({ name, dtype: 'U8', shape: [matrix.bytes], bytes: matrix.bytes })),
      ...originals.map((s) => ({
        name: s.name,
        dtype: keptType(s).toUpperCase(),
        shape: s.shape,
        bytes: elements(s.shape) * STORED_BYTES[keptType(s)],
      })),
    ],
    { format: 'tetrad-packed', version: String(PACKED_VERSION), weights },
  )
  const bytes = header.length + dataBytes
  await checkOutput(out, bytes)

  const memories = allocateMemories(plan, layout)
  await loadWeights(plans, memories, options.onProgress, signal)
  const partial = join(out, 'model.safetensors.partial')
  try {
    const file = await open(partial, 'w')
    try {
      await file.writeFile(header)
      const write = async (data: Uint8Array) => {
        if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'converting was stopped', remedy: 'Start it again when it is wanted.' })
        await file.writeFile(data)
      }
      for (const { shard, matrix } of matrices) {
        const buffer = bufferOf(memories.shards[shard] as NonNullable<(typeof memories.shards)[number]>)
        // Copied: what is written must not be shared memory.
        for (let done = 0; done < matrix.bytes; done += COPY_BYTES)
          await write(Uint8Array.from(new Uint8Array(buffer, matrix.ptr + done, Math.min(COPY_BYTES, matrix.bytes - done))))
      }
      for (const source of originals) {
        await write(await keptBytes(source))
      }
    } finally {
      await file.close()
    }
    await rename(partial, join(out, 'model.safetensors'))
    for (const name of BESIDE) {
      const text = await readModelFile(dir, name)
      if (text !== undefined) await writeFile(join(out, name), text)
    }
    const config = (await readModelConfigFile(dir)) as Record<string, unknown>
    // As the tensors were, whatever the original file says: a packed file holds one matrix or two.
    const stated = { tie_word_embeddings: model.lowered.shape.tiedHead }
    const packed = { version: PACKED_VERSION, weights, embedding: plan.embedding }
    await writeFile(join(out, 'config.json'), `${JSON.stringify({ ...config, variant: model.variant.name, ...stated, packed }, null, 2)}\n`)
  } catch (error) {
    await rm(partial, { force: true })
    if (error instanceof TetradError) throw error
    throw outputFailed(out, error)
  }
  return { dir: out, variant: model.variant.name, weights, bytes }
}

/** What belongs to a model beside its weights, where it is there. */
const BESIDE = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'generation_config.json', 'chat_template.jinja']

/** What is not packed is kept in rows. */
function refuseView(source: TensorSource | undefined): void {
  if (source?.strides === undefined || source.strides.at(-1) === 1) return
  throw new CheckpointError('TENSOR_SHAPE', {
    what: `${source.name} is stored as a view with strides, which cannot be converted`,
    expected: 'contiguous tensors',
    actual: `strides [${source.strides.join(', ')}]`,
    remedy: 'Save the checkpoint with contiguous tensors (tensor.contiguous()), or load it as it is.',
  })
}
