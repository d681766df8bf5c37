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
  /** Parameters of three dimensions have one too, as target_parameters gives it; else linear layers only. */
  readonly parameters?: boolean
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
export function adapterTensors(tensors: readonly PlainTensor[], { seed, rank, modules, rankOf, parameters, size = 0.3 }: AdapterSpec): PlainTensor[] {
  const next = randomNumbers(seed)
  const values = (n: number) => Float32Array.from({ length: n }, () => (next() * 2 - 1) * size)
  const owners = parameters ? tensors.filter(({ shape }) => shape.length === 3).map(({ name }) => name.slice(0, name.lastIndexOf('.'))) : []
  const linear = linearModules(tensors).flatMap(({ module, shape: [rows, cols] }) => {
    if (modules && !modules.includes(lastName(module))) return []
    const r = rankOf?.(module) ?? rank
    const owner = owners.find((name) => module.startsWith(`${name}.`))
    const key = owner === undefined ? module : `${owner}.base_layer${module.slice(owner.length)}`
    return [
      { name: `base_model.model.${key}.lora_A.weight`, shape: [r, cols], values: values(r * cols) },
      { name: `base_model.model.${key}.lora_B.weight`, shape: [rows, r], values: values(rows * r) },
    ]
  })
  if (!parameters) return linear
  const stacked = tensors.flatMap(({ name, shape }) => {
    if (shape.length !== 3) return []
    const [parts, inputs, outputs] = shape as unknown as [number, number, number]
    const key = `base_model.model.${name.slice(0, name.lastIndexOf('.'))}`
    return [
      { name: `${key}.lora_A.weight`, shape: [parts * rank, inputs], values: values(parts * rank * inputs) },
      { name: `${key}.lora_B.weight`, shape: [outputs, rank * parts], values: values(outputs * rank * parts) },
    ]
  })
  return [...linear, ...stacked]
}

/** scale B A of a parameter [parts, inputs, outputs], as PEFT's ParamWrapper computes it: einsum('o r e, e r i -> e i o'). */
function stackedDelta([parts, inputs, outputs]: readonly [number, number, number], a: Float32Array, b: Float32Array, rank: number, scale: number) {
  const delta = new Float64Array(parts * inputs * outputs)
  for (let e = 0; e < parts; e++) {
    for (let i = 0; i < inputs; i++) {
      for (let o = 0; o < outputs; o++) {
        let sum = 0
        for (let r = 0; r < rank; r++) sum += (b[(o * rank + r) * parts + e] as number) * (a[(e * rank + r) * inputs + i] as number)
        delta[(e * inputs + i) * outputs + o] = scale * sum
      }
    }
  }
  return delta
}

export function adapterConfig(
  tensors: readonly PlainTensor[],
  { rank, alpha = 2 * rank, modules, config, parameters }: AdapterSpec,
): Record<string, unknown> {
  return {
    ...{ alpha_pattern: {}, auto_mapping: null, base_model_name_or_path: 'base', bias: 'none', corda_config: null, eva_config: null },
    ...{ exclude_modules: null, fan_in_fan_out: false, inference_mode: true, init_lora_weights: true, layer_replication: null },
    ...{ layers_pattern: null, layers_to_transform: null, loftq_config: {}, lora_alpha: alpha, lora_bias: false, lora_dropout: 0.05 },
    ...{ megatron_config: null, megatron_core: 'megatron.core', modules_to_save: null, peft_type: 'LORA', peft_version: '0.18.0' },
    ...{
      qalora_group_size: 16,
      r: rank,
      rank_pattern: {},
      revision: null,
      target_parameters: parameters ? ['attn.kv_b_proj'] : null,
      task_type: 'CAUSAL_LM',
    },
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
  const parts = new Map(adapterTensors(tensors, spec).map((tensor) => [tensor.name.replace('.base_layer', ''), tensor]))
  const { alpha = 2 * spec.rank, scaleOf = (_: string, rank: number) => alpha / rank } = spec
  return tensors.map((tensor) => {
    if (spec.parameters && tensor.shape.length === 3) {
      const owner = tensor.name.slice(0, tensor.name.lastIndexOf('.'))
      const [a, b] = ['A', 'B'].map((part) => (parts.get(`base_model.model.${owner}.lora_${part}.weight`) as PlainTensor).values)
      const shape = tensor.shape as unknown as [number, number, number]
      const delta = stackedDelta(shape, a as Float32Array, b as Float32Array, spec.rank, alpha / spec.rank)
      return { ...tensor, values: tensor.values.map((w, i) => w + (delta[i] as number)) }
    }
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
