// Low-rank adapters as PEFT writes them, and the model that they are merged into, in float64.
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { randomNumbers } from './fixtures.js'
import { type PlainTensor, safetensors } from './models.js'

export interface AdapterSpec {
  readonly seed: number
  readonly rank: number
  /** Default 2 rank. */
  readonly alpha?: number
  /** Last names of modules; default: all linear layers. */
  readonly modules?: readonly string[]
  /** Fields of adapter_config.json beside the usual ones. */
  readonly config?: Readonly<Record<string, unknown>>
  /** The rank of a module, where it is another. */
  readonly rankOf?: (module: string) => number
  /** Of B A, as the configuration must give it; default alpha / rank. */
  readonly scaleOf?: (module: string, rank: number) => number
  /** Size of the values; default 0.3. */
  readonly size?: number
}

/** Modules of a checkpoint that are linear layers of its layers. */
export function linearModules(tensors: readonly PlainTensor[]): { module: string; shape: readonly [number, number] }[] {
  return tensors.flatMap(({ name, shape }) =>
    shape.length === 2 && /\.\d+\./.test(name) && name.endsWith('.weight')
      ? [{ module: name.slice(0, -'.weight'.length), shape: shape as readonly [number, number] }]
      : [],
  )
}

const lastName = (module: string) => module.slice(module.lastIndexOf('.') + 1)

/** Tensors of an adapter, by their names in PEFT's files. */
export function adapterTensors(tensors: readonly PlainTensor[], { seed, rank, modules, rankOf, size = 0.3 }: AdapterSpec): PlainTensor[] {
  const next = randomNumbers(seed)
  const values = (n: number) => Float32Array.from({ length: n }, () => (next() * 2 - 1) * size)
  return linearModules(tensors).flatMap(({ module, shape: [rows, cols] }) => {
    if (modules && !modules.includes(lastName(module))) return []
    const r = rankOf?.(module) ?? rank
    return [
      { name: `base_model.model.${module}.lora_A.weight`, shape: [r, cols], values: values(r * cols) },
      { name: `base_model.model.${module}.lora_B.weight`, shape: [rows, r], values: values(rows * r) },
    ]
  })
}

export function adapterConfig(tensors: readonly PlainTensor[], { rank, alpha = 2 * rank, modules, config }: AdapterSpec): Record<string, unknown> {
  return {
    ...{ alpha_pattern: {}, auto_mapping: null, base_model_name_or_path: 'base', bias: 'none', corda_config: null, eva_config: null },
    ...{ exclude_modules: null, fan_in_fan_out: false, inference_mode: true, init_lora_weights: true, layer_replication: null },
    ...{ layers_pattern: null, layers_to_transform: null, loftq_config: {}, lora_alpha: alpha, lora_bias: false, lora_dropout: 0.05 },
    ...{ megatron_config: null, megatron_core: 'megatron.core', modules_to_save: null, peft_type: 'LORA', peft_version: '0.18.0' },
    ...{ qalora_group_size: 16, r: rank, rank_pattern: {}, revision: null, target_parameters: null, task_type: 'CAUSAL_LM' },
    ...{ trainable_token_indices: null, use_dora: false, use_qalora: false, use_rslora: false },
    target_modules: [...new Set(modules ?? linearModules(tensors).map(({ module }) => lastName(module)))],
    ...config,
  }
}

/** Writes an adapter for a model with these tensors. */
export function writeAdapter(dir: string, tensors: readonly PlainTensor[], spec: AdapterSpec): void {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify(adapterConfig(tensors, spec)))
  writeFileSync(join(dir, 'adapter_model.safetensors'), safetensors(adapterTensors(tensors, spec)))
}

/** The tensors with W + scale B A in place of W. */
export function mergedTensors(tensors: readonly PlainTensor[], spec: AdapterSpec): PlainTensor[] {
  const parts = new Map(adapterTensors(tensors, spec).map((tensor) => [tensor.name, tensor]))
  const { alpha = 2 * spec.rank, scaleOf = (_: string, rank: number) => alpha / rank } = spec
  return tensors.map((tensor) => {
    const module = tensor.name.replace(/\.weight$/, '')
    const a = parts.get(`base_model.model.${module}.lora_A.weight`)
    const b = parts.get(`base_model.model.${module}.lora_B.weight`)
    if (!a || !b) return tensor
    const [r, cols] = a.shape as [number, number]
    const scale = scaleOf(module, r)
    const values = tensor.values.map((w, i) => {
      const [row, col] = [Math.floor(i / cols), i % cols]
      let sum = 0
      for (let k = 0; k < r; k++) sum += (b.values[row * r + k] as number) * (a.values[k * cols + col] as number)
      return w + scale * sum
    })
    return { ...tensor, values }
  })
}

/** A copy of a model directory whose weights are these. */
export function writeModel(dir: string, of: string, tensors: readonly PlainTensor[]): void {
  mkdirSync(dir, { recursive: true })
  cpSync(join(of, 'config.json'), join(dir, 'config.json'))
  writeFileSync(join(dir, 'model.safetensors'), safetensors(tensors))
}
