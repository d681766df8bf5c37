// An adapter directory opened but not loaded: which tensor is A or B of which projection, of what scale, checked against the model.
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { AdapterError, CheckpointError } from '../../errors.js'
import { withFile } from '../checkpoint/byte-reader.js'
import { readSafetensors } from '../checkpoint/safetensors.js'
import type { TensorSource } from '../checkpoint/tensor-source.js'
import type { MatrixSpec, Variant } from '../families/family.js'
import { modelTensors } from '../families/model-tensors.js'
import type { LoweredModel } from '../lower-model.js'
import { type AdapterConfig, readAdapterConfig } from './adapter-config.js'

/** W + scale B A of one projection. */
export interface LowRankTensor {
  readonly spec: MatrixSpec
  readonly rank: number
  readonly scale: number
  /**
   * Matrices of a parameter [parts, inputs, outputs], whose A are one below the other, [parts * rank, inputs], and whose B alternate by
   * columns, [outputs, rank * parts]. 1: a linear layer.
   */
  readonly parts: number
  /** [rank, inputs] */
  readonly a: TensorSource
  /** [outputs, rank] */
  readonly b: TensorSource
}

export interface AdapterFiles {
  readonly dir: string
  /** The largest of its projections. */
  readonly rank: number
  /** In the order of the model's tensors. */
  readonly tensors: readonly LowRankTensor[]
}

const WEIGHTS = 'adapter_model.safetensors'
const PICKLED = 'adapter_model.bin'
const PREFIX = 'base_model.model.'
const KEY = /^(.+)\.lora_(A|B)\.weight$/
/** What PEFT puts between a module whose parameter has an adapter and the module's own modules. */
const WRAPPED = '.base_layer'

/**
 * Reads an adapter's configuration and the header of its weights. maxRank: of any projection.
 * Throws AdapterError ADAPTER_NOT_FOUND, ADAPTER_INVALID, ADAPTER_UNSUPPORTED or ADAPTER_NO_ROOM, or CheckpointError TENSOR_SHAPE,
 * TENSOR_MISSING, TENSOR_DTYPE or CHECKPOINT_INVALID.
 */
export async function openAdapter(dir: string, model: LoweredModel, variant: Variant, maxRank: number): Promise<AdapterFiles> {
  const config = await readAdapterConfig(dir)
  const path = await weightsOf(dir)
  const names = new Set<string>()
  const sources = await withFile(path, (reader) => readSafetensors(reader, path, false, ({ name }) => names.add(name)))
  const [skipped] = names
  if (skipped !== undefined) throw unknownKey(path, skipped, 'no buffers')
  return { dir, ...matchTensors(new Map(sources.map((source) => [source.name, source])), config, model, variant, maxRank, path) }
}

/** Tensors by their names in the file. */
export function matchTensors(
  sources: ReadonlyMap<string, TensorSource>,
  config: AdapterConfig,
  model: LoweredModel,
  variant: Variant,
  maxRank: number,
  path: string,
): Pick<AdapterFiles, 'rank' | 'tensors'> {
  const specs = modelTensors(model, variant).flatMap((spec) => (spec.kind === 'matrix' && spec.layer !== undefined ? [spec] : []))
  const byModule = new Map(specs.map((spec) => [moduleOf(spec), spec]))
  const found = new Map<MatrixSpec, { A?: TensorSource; B?: TensorSource; key: string }>()
  for (const [name, source] of sources) {
    const [, key, part] = KEY.exec(name.startsWith(PREFIX) ? name.slice(PREFIX.length) : '') ?? []
    const module = key?.replaceAll(WRAPPED, '')
    const spec = module === undefined ? undefined : byModule.get(module)
    if (key === undefined || module === undefined || !spec)
      throw unknownKey(path, name, `${PREFIX}${specs[0]?.name.replace('.weight', '')}.lora_A.weight, for example`)
    const isTarget = config.targetsParameter(spec.name) || (spec.shape.length === 2 && config.targets(module))
    if (!isTarget) throw unknownKey(path, name, 'modules that target_modules, target_parameters and layers_to_transform of adapter_config.json name')
    const entry = found.get(spec) ?? { key }
    if (entry[part as 'A' | 'B'] || entry.key !== key) throw unknownKey(path, name, 'one lora_A and one lora_B of each module')
    entry[part as 'A' | 'B'] = source
    found.set(spec, entry)
  }
  if (found.size === 0) {
    throw new AdapterError('ADAPTER_INVALID', {
      what: `${path} has no tensors`,
      expected: 'lora_A and lora_B of some projection',
      remedy: 'Save the adapter again.',
    })
  }
  const tensors = specs.flatMap((spec): LowRankTensor[] => {
    const entry = found.get(spec)
    if (!entry) return []
    const module = spec.name.replace(/\.weight$/, '')
    const rank = config.rankOf(module)
    if (rank > maxRank) {
      throw new AdapterError('ADAPTER_NO_ROOM', {
        what: `the rank of ${module} is too large`,
        expected: `at most ${maxRank}`,
        actual: String(rank),
        remedy: `Load the engine with maxAdapterRank: ${rank}.`,
      })
    }
    const { parts, outputs, inputs } = sizesOf(spec.shape)
    const a = checked(entry.A, `${PREFIX}${entry.key}.lora_A.weight`, [parts * rank, inputs], path)
    const b = checked(entry.B, `${PREFIX}${entry.key}.lora_B.weight`, [outputs, rank * parts], path)
    return [{ spec, rank, scale: config.scaleOf(module), parts, a, b }]
  })
  return { rank: Math.max(...tensors.map(({ rank }) => rank)), tensors }
}

/** What an adapter's keys name: a linear layer, or the module that has a parameter. */
function moduleOf({ name, shape }: MatrixSpec): string {
  return shape.length === 2 ? name.replace(/\.weight$/, '') : name.slice(0, name.lastIndexOf('.'))
}

function sizesOf(shape: readonly number[]): { parts: number; inputs: number; outputs: number } {
  const [first, second, third] = shape as [number, number, number | undefined]
  return third === undefined ? { parts: 1, inputs: second, outputs: first } : { parts: first, inputs: second, outputs: third }
}

function checked(source: TensorSource | undefined, name: string, shape: readonly number[], path: string): TensorSource {
  if (!source) {
    throw new CheckpointError('TENSOR_MISSING', {
      what: `${path} has no ${name}`,
      expected: `a tensor [${shape.join(', ')}]`,
      remedy: 'Save the adapter again: each lora_A has a lora_B.',
    })
  }
  if (source.shape.join() === shape.join()) return source
  throw new CheckpointError('TENSOR_SHAPE', {
    what: `${path}: ${name} has another shape than the model and adapter_config.json say`,
    expected: `[${shape.join(', ')}]`,
    actual: `[${source.shape.join(', ')}]`,
    remedy: 'Use the model that the adapter was trained for.',
  })
}

async function weightsOf(dir: string): Promise<string> {
  const exists = (file: string) =>
    access(join(dir, file)).then(
      () => true,
      () => false,
    )
  if (await exists(WEIGHTS)) return join(dir, WEIGHTS)
  if (await exists(PICKLED)) {
    const convert = `python -c "import torch; from safetensors.torch import save_file; save_file(torch.load('${PICKLED}', weights_only=True), '${WEIGHTS}')"`
    throw new AdapterError('ADAPTER_UNSUPPORTED', {
      what: `${join(dir, PICKLED)} is not read: a pickle can run code`,
      expected: WEIGHTS,
      actual: PICKLED,
      remedy: `Convert it where you trust it: ${convert}.`,
    })
  }
  throw new AdapterError('ADAPTER_NOT_FOUND', {
    what: `${dir} holds no weights of an adapter`,
    expected: WEIGHTS,
    remedy: 'Point at the directory of an adapter.',
  })
}

function unknownKey(path: string, name: string, expected: string): AdapterError {
  return new AdapterError('ADAPTER_UNSUPPORTED', {
    what: `${path}: ${name.slice(0, 200)} is of no projection that can have an adapter`,
    expected,
    actual: name.slice(0, 200),
    remedy: 'Adapters go on the projections of attention and MLP of the layers; docs/lora.md lists them. Merge other parts into the model.',
  })
}
