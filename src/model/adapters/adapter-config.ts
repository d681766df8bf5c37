// adapter_config.json as PEFT writes it: the scale of each projection, and the refusal of everything that would change the result and is
// not done. Source: PEFT 0.18, src/peft/tuners/lora/config.py and layer.py.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { AdapterError } from '../../errors.js'
import { show } from '../../options/check.js'
import { readJsonFile } from '../read-json.js'

export interface AdapterConfig {
  /** Of projections that no pattern names. */
  readonly rank: number
  /** The rank that the configuration gives a module, for example model.layers.0.self_attn.q_proj. */
  rankOf(module: string): number
  /** What multiplies B A of a module: alpha / rank, or alpha / sqrt(rank) with use_rslora. */
  scaleOf(module: string): number
  /** Whether the configuration gives the module an adapter. True where only a regular expression says so. */
  targets(module: string): boolean
  /** Whether target_parameters names the parameter, for example transformer.h.0.attn.kv_b_proj. */
  targetsParameter(name: string): boolean
}

type Fields = Readonly<Record<string, unknown>>

const CONFIG = 'adapter_config.json'
const MAX_CONFIG_BYTES = 1 << 20
const MAX_PATTERNS = 10_000

/** Fields that do not change what a trained adapter computes. */
const WITHOUT_EFFECT = new Set([
  ...['auto_mapping', 'base_model_name_or_path', 'revision', 'peft_version', 'task_type', 'inference_mode', 'lora_dropout'],
  // How the adapter was made; its tensors say which modules have one.
  ...['exclude_modules', 'layers_pattern', 'megatron_core', 'qalora_group_size', 'eva_config', 'lora_ga_config', 'corda_config'],
])
const READ = new Set([
  ...['peft_type', 'r', 'lora_alpha', 'use_rslora', 'rank_pattern', 'alpha_pattern', 'bias', 'init_lora_weights'],
  ...['target_modules', 'target_parameters', 'layers_to_transform'],
])
/** What beside the adapter changes the model, and what to do instead. */
const REMEDIES: Readonly<Record<string, string>> = {
  use_dora: 'Merge the adapter into the model (merge_and_unload) and load the merged checkpoint, or train without DoRA.',
  modules_to_save: 'Merge the adapter into the model (merge_and_unload) and load the merged checkpoint.',
  trainable_token_indices: 'Merge the adapter into the model (merge_and_unload) and load the merged checkpoint.',
  fan_in_fan_out: 'Set it to false: the projections of these models are linear layers, for which PEFT sets it to false.',
}
const MERGE = 'Merge the adapter into the model (merge_and_unload) and load the merged checkpoint.'
/** These begin with other base weights than the checkpoint's. */
const INITS: readonly unknown[] = [true, false, null, undefined, 'gaussian', 'eva', 'orthogonal']

/** Reads and checks it. Throws AdapterError ADAPTER_NOT_FOUND, ADAPTER_INVALID or ADAPTER_UNSUPPORTED. */
export async function readAdapterConfig(dir: string): Promise<AdapterConfig> {
  const path = join(dir, CONFIG)
  const { size } = await stat(path).catch((cause: unknown) => {
    throw new AdapterError('ADAPTER_NOT_FOUND', {
      what: `${dir} holds no adapter`,
      expected: `${CONFIG} and adapter_model.safetensors, as PEFT's save_pretrained writes them`,
      actual: `no ${CONFIG}`,
      remedy: 'Point at the directory of an adapter.',
      cause,
    })
  })
  if (size > MAX_CONFIG_BYTES) throw invalid(path, 'it is too large', `at most ${MAX_CONFIG_BYTES} bytes`, String(size))
  const value = await readJsonFile(path, ({ what, actual, cause }) => invalid(path, `it is ${what}`, 'a JSON object', actual ?? '', cause))
  return checkAdapterConfig(value, path)
}

/** `path`: for messages. Throws as readAdapterConfig does. */
export function checkAdapterConfig(value: unknown, path: string): AdapterConfig {
  if (!isRecord(value)) throw invalid(path, 'it is no object', 'a JSON object', show(value))
  if (value.peft_type !== 'LORA') throw unsupported(path, 'peft_type', value.peft_type, '"LORA"', 'Use an adapter of that type.')
  refuseOthers(value, path)
  const rank = positive(value.r, 'r', path, Number.isInteger)
  const alpha = number(value.lora_alpha ?? 8, 'lora_alpha', path)
  const ranks = patterns(value.rank_pattern, 'rank_pattern', path, (v, name) => positive(v, name, path, Number.isInteger))
  const alphas = patterns(value.alpha_pattern, 'alpha_pattern', path, (v, name) => number(v, name, path))
  const stabilized = boolean(value.use_rslora, 'use_rslora', path)
  const rankOf = (module: string) => ranks(module) ?? rank
  return {
    rank,
    rankOf,
    scaleOf: (module) => (alphas(module) ?? alpha) / (stabilized ? Math.sqrt(rankOf(module)) : rankOf(module)),
    targets: targetsOf(value, path),
    targetsParameter: parametersOf(value, path),
  }
}

function refuseOthers(config: Fields, path: string): void {
  if (config.bias !== undefined && config.bias !== 'none') throw unsupported(path, 'bias', config.bias, '"none"', MERGE)
  if (!INITS.includes(config.init_lora_weights)) {
    const remedy = 'Save the adapter as plain LoRA: save_pretrained(..., path_initial_model_for_weight_conversion=...).'
    throw unsupported(path, 'init_lora_weights', config.init_lora_weights, 'an initialization that keeps the base weights', remedy)
  }
  for (const [name, value] of Object.entries(config)) {
    if (READ.has(name) || WITHOUT_EFFECT.has(name) || isNothing(value)) continue
    throw unsupported(path, name, value, 'null, false or nothing', REMEDIES[name] ?? MERGE)
  }
}

/** The default of every field that asks for something. */
function isNothing(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0
  if (isRecord(value)) return Object.keys(value).length === 0
  return value === null || value === undefined || value === false || value === ''
}

/**
 * Modules that the lists name, by their last names. A regular expression is not run: the tensors of the adapter say which modules have one,
 * and PEFT writes no others.
 */
function targetsOf({ target_modules: modules, layers_to_transform: layers }: Fields, path: string): (module: string) => boolean {
  const isIndex = (v: unknown): v is number => typeof v === 'number' && Number.isInteger(v)
  const chosen = layers === undefined || layers === null ? undefined : isIndex(layers) ? [layers] : layers
  if (chosen !== undefined && !(Array.isArray(chosen) && chosen.every(isIndex)))
    throw invalid(path, 'layers_to_transform is not valid', 'an index, a list of them, or null', show(layers))
  const inLayers = (module: string) => {
    const index = /\.(\d+)\./.exec(module)?.[1]
    return chosen === undefined || chosen.length === 0 || (index !== undefined && chosen.includes(Number(index)))
  }
  if (modules === undefined || modules === null || typeof modules === 'string') return inLayers
  if (!isNames(modules)) throw invalid(path, 'target_modules is not valid', 'a list of names, or a regular expression', show(modules))
  const isNamed = endsWithOneOf(modules)
  return (module) => isNamed(module) && inLayers(module)
}

function parametersOf({ target_parameters: names }: Fields, path: string): (name: string) => boolean {
  if (names === undefined || names === null) return () => false
  if (!isNames(names)) throw invalid(path, 'target_parameters is not valid', 'a list of names', show(names))
  return endsWithOneOf(names)
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === 'string')
}

/** Whether a module is one of the names, or ends with a dot and one of them. */
function endsWithOneOf(list: readonly string[]): (module: string) => boolean {
  const names = new Set(list)
  return (module) => names.has(module) || [...module.matchAll(/\./g)].some(({ index }) => names.has(module.slice(index + 1)))
}

/** A value by a module's name or its end, the first that matches. Regular expressions beyond names are refused. */
function patterns(
  given: unknown,
  name: string,
  path: string,
  check: (value: unknown, name: string) => number,
): (module: string) => number | undefined {
  if (given === undefined || given === null) return () => undefined
  if (!isRecord(given)) throw invalid(path, `${name} is not valid`, 'an object of module names and numbers', show(given))
  const entries = Object.entries(given)
  if (entries.length > MAX_PATTERNS) throw invalid(path, `${name} is too long`, `at most ${MAX_PATTERNS} entries`, String(entries.length))
  const known = entries.map(([key, value]) => {
    if (!/^\^?[\w.]+$/.test(key))
      throw unsupported(path, `${name} with the regular expression`, key, 'names of modules', 'Write one entry for each module.')
    const number = check(value, `${name}.${key.slice(0, 80)}`)
    return key.startsWith('^')
      ? { number, matches: (module: string) => module === key.slice(1) }
      : { number, matches: (module: string) => module === key || module.endsWith(`.${key}`) }
  })
  const found = new Map<string, number | undefined>()
  return (module) => {
    if (!found.has(module)) found.set(module, known.find(({ matches }) => matches(module))?.number)
    return found.get(module)
  }
}

function number(value: unknown, name: string, path: string): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw invalid(path, `${name} is not valid`, 'a number', show(value))
}

function positive(value: unknown, name: string, path: string, is: (value: unknown) => boolean): number {
  if (typeof value === 'number' && is(value) && value > 0) return value
  throw invalid(path, `${name} is not valid`, 'a positive integer', show(value))
}

function boolean(value: unknown, name: string, path: string): boolean {
  if (value === undefined || value === null || typeof value === 'boolean') return value ?? false
  throw invalid(path, `${name} is not valid`, 'true or false', show(value))
}

function isRecord(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(path: string, what: string, expected: string, actual: string, cause?: unknown): AdapterError {
  return new AdapterError('ADAPTER_INVALID', { what: `${path}: ${what}`, expected, actual, remedy: 'Save the adapter again.', cause })
}

function unsupported(path: string, field: string, value: unknown, expected: string, remedy: string): AdapterError {
  return new AdapterError('ADAPTER_UNSUPPORTED', { what: `${path}: ${field} is not supported`, expected, actual: show(value), remedy })
}
