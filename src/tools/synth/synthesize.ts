// Writes a checkpoint of random weights, streamed to disk: any variant, any shape, loaded like any other checkpoint.
import { open, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { OptionError, TetradError } from '../../errors.js'
import { VARIANT_NAMES, VARIANTS, type Variant, variantNamed } from '../../model/attention-variants.js'
import { safetensorsHeader } from '../../model/checkpoint/safetensors-header.js'
import { elements } from '../../model/checkpoint/tensor-source.js'
import { GPT } from '../../model/families/gpt.js'
import { lowerModel } from '../../model/lower-model.js'
import { parseModelConfig, readConfigFile } from '../../model/model-config.js'
import { checkInteger, checkNames, checkOneOf, checkSignal, type Fail } from '../../options/check.js'
import { describeTensors } from './describe-tensors.js'
import { checkOutput, outputFailed } from './output-directory.js'
import { PRESETS, variantOfPreset } from './presets.js'
import { RandomWeights, SYNTH_BYTES, type SynthType } from './random-weights.js'

/** What synthesize takes. Give `preset`, or `config`. */
export interface SynthOptions {
  /** Name of the attention variant. Default: config.json's `variant`, which must be there then. */
  variant?: string
  /** '2.9b' (the paper's configurations), 'mid' (12 layers of 1024), or the shape of a model: see docs/variants.md. */
  preset?: string
  /** Path of a config.json, or its content. */
  config?: string | Record<string, unknown>
  /** Type of the stored weights: 'bf16' (default), 'f16' or 'f32'. */
  dtype?: 'bf16' | 'f16' | 'f32'
  /** An integer from 0 (default) to 2^53 - 1. The same seed gives the same files. */
  seed?: number
  onProgress?: (progress: { readonly writtenBytes: number; readonly totalBytes: number }) => void
  /** Stops writing and removes what was written. */
  signal?: AbortSignal
}

/** What synthesize wrote. */
export interface SynthResult {
  readonly dir: string
  readonly variant: string
  readonly parameters: number
  /** Size of the weight file. */
  readonly bytes: number
}

/** Elements written at a time. */
const BLOCK = 1 << 20
const NAMES = ['variant', 'preset', 'config', 'dtype', 'seed', 'onProgress', 'signal']
const fail: Fail = (facts) => new OptionError('OPTION_INVALID', facts)

/**
 * Writes `dir`/config.json and `dir`/model.safetensors. Never overwrites a model.
 * @throws OptionError, CheckpointError CONFIG_INVALID or MODEL_NOT_FOUND (the configuration), TetradError OUTPUT_EXISTS,
 * OUTPUT_FAILED or SYNTH_ABORTED
 */
export async function synthesize(dir: string, options: SynthOptions): Promise<SynthResult> {
  const o = checkNames('synthesize', options, NAMES)
  const type: SynthType = checkOneOf('dtype', o.dtype ?? 'bf16', ['bf16', 'f16', 'f32'] as const, fail)
  const seed = checkInteger('seed', o.seed ?? 0, 0, Number.MAX_SAFE_INTEGER, fail)
  const signal = checkSignal(o.signal)
  const { config, variant } = await configuration(o as SynthOptions)
  const model = lowerModel(parseModelConfig({ ...config, variant: undefined }), variant)
  const tensors = describeTensors(model, variant)
  const { header, dataBytes } = safetensorsHeader(
    tensors.map(({ name, shape }) => ({ name, dtype: type.toUpperCase(), shape, bytes: elements(shape) * SYNTH_BYTES[type] })),
    { format: 'pt' },
  )
  const totalBytes = header.length + dataBytes
  await checkOutput(dir, totalBytes)

  const partial = join(dir, 'model.safetensors.partial')
  try {
    const file = await open(partial, 'w')
    try {
      await file.writeFile(header)
      let writtenBytes = header.length
      const buffer = new ArrayBuffer(BLOCK * SYNTH_BYTES[type])
      for (const { name, shape, deviation } of tensors) {
        const weights = new RandomWeights(type, seed, name, deviation)
        for (let left = elements(shape); left > 0; left -= BLOCK) {
          if (signal?.aborted) throw new TetradError('SYNTH_ABORTED', { what: 'writing was stopped', remedy: 'Start it again when it is wanted.' })
          const n = Math.min(left, BLOCK)
          weights.fill(buffer, n)
          await file.writeFile(new Uint8Array(buffer, 0, n * SYNTH_BYTES[type]))
          writtenBytes += n * SYNTH_BYTES[type]
          options.onProgress?.({ writtenBytes, totalBytes })
        }
      }
    } finally {
      await file.close()
    }
    await rename(partial, join(dir, 'model.safetensors'))
    // The configuration comes last: a directory without it is no model.
    const torchType = { bf16: 'bfloat16', f16: 'float16', f32: 'float32' }[type]
    const identity = variant.decoder === GPT ? { architectures: GPT.architectures, bias: false, model_type: 'gpt2' } : {}
    const written = { ...identity, ...config, torch_dtype: torchType, variant: variant.name }
    await writeFile(join(dir, 'config.json'), `${JSON.stringify(written, null, 2)}\n`)
  } catch (error) {
    await rm(partial, { force: true })
    if (error instanceof TetradError) throw error
    throw outputFailed(dir, error)
  }
  return { dir, variant: variant.name, parameters: tensors.reduce((sum, t) => sum + elements(t.shape), 0), bytes: totalBytes }
}

async function configuration(o: SynthOptions): Promise<{ config: Record<string, unknown>; variant: Variant }> {
  if ((o.preset === undefined) === (o.config === undefined))
    throw fail({
      what: 'preset or config is needed, one of them',
      expected: 'preset, or config',
      actual: o.preset === undefined ? 'neither' : 'both',
      remedy: 'Set one of the two: preset is a configuration by name, config is a config.json.',
    })
  if (o.preset !== undefined) {
    const preset = checkOneOf('preset', o.preset, Object.keys(PRESETS), fail)
    const variant = variantNamed(checkOneOf('variant', o.variant ?? variantOfPreset(preset), VARIANT_NAMES, fail))
    const config = PRESETS[preset]?.(variant.name)
    if (config) return { config, variant }
    throw fail({
      what: `the preset ${o.preset} has no ${variant.name}`,
      expected: 'another variant',
      actual: variant.name,
      remedy: 'Use config for it.',
    })
  }
  const given = typeof o.config === 'string' ? await readConfigFile(o.config) : o.config
  // Checked before anything of it is used.
  const { variant, decoder } = parseModelConfig(given)
  const [only, ...others] = VARIANTS.filter((v) => v.decoder === decoder)
  const name = o.variant ?? variant ?? (others.length === 0 ? only?.name : undefined)
  if (name === undefined)
    throw fail({
      what: 'variant is needed: config.json does not name one',
      expected: `one of ${VARIANT_NAMES.join(', ')}`,
      actual: 'none',
      remedy: 'Set variant.',
      option: 'variant',
    })
  return { config: given as Record<string, unknown>, variant: variantNamed(checkOneOf('variant', name, VARIANT_NAMES, fail)) }
}
