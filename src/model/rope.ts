// Rotary embedding as config.json states it, in the spelling of transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters),
// and the frequencies that follow. Everything is float64 from portable-math, so every engine gives the same bits.
import { log, ropeFrequencies } from '../../kernels/portable-math.js'
import type { RopeShape } from '../../workers/protocol.js'
import { type Fail, show } from '../options/check.js'
import { invalidConfig } from './invalid-config.js'

interface Llama3Scaling {
  readonly type: 'llama3'
  readonly factor: number
  readonly lowFrequencyFactor: number
  readonly highFrequencyFactor: number
  /** Context that the model was trained for before scaling, tokens. */
  readonly originalContext: number
}

interface YarnScaling {
  readonly type: 'yarn'
  readonly factor: number
  readonly originalContext: number
  /** Rotations over the original context: vectors with more keep their frequency, those with fewer than betaSlow are interpolated. */
  readonly betaFast: number
  readonly betaSlow: number
  readonly truncate: boolean
  /** Multiplies cosines and sines. */
  readonly attentionFactor: number
  /** mscale_all_dim's magnitude; 1 without. DeepSeek's scores are multiplied by its square. */
  readonly allMagnitude: number
}

/** Each frequency divided by a number of its own, as GGUF files have it. */
interface DividedScaling {
  readonly type: 'divided'
  readonly factors: readonly number[]
}

export type RopeScaling = { readonly type: 'linear'; readonly factor: number } | Llama3Scaling | YarnScaling | DividedScaling

export interface RopeConfig {
  readonly base: number
  readonly scaling: RopeScaling | undefined
}

type Fields = Readonly<Record<string, unknown>>

const DEFAULT_BASE = 10000
const TYPE_KEYS = ['rope_type', 'type', 'rope_theta']
/** Fields that each type reads. Any other field in the object is refused. */
const TYPES: Readonly<Record<string, readonly string[]>> = {
  default: [],
  linear: ['factor', 'original_max_position_embeddings'],
  divided: ['factors'],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'],
  yarn: ['factor', 'original_max_position_embeddings', 'attention_factor', 'beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim', 'truncate'],
}

/** Reads the rope fields of a config. `context`: tokens that the config says the model takes. Throws what `fail` makes. */
export function readRope(config: Fields, context: number, fail: Fail): RopeConfig {
  const scaling = objectOf(config, 'rope_scaling', fail)
  const parameters = objectOf(config, 'rope_parameters', fail)
  if (scaling && parameters && JSON.stringify(scaling) !== JSON.stringify(parameters)) {
    throw refuse(fail, 'rope_scaling and rope_parameters are both set and differ', 'one of them', 'both')
  }
  const rope = parameters ?? scaling ?? {}
  const field = parameters ? 'rope_parameters' : 'rope_scaling'
  const bases = [config.rope_theta, rope.rope_theta].filter((value) => value !== undefined && value !== null)
  if (bases.length === 2 && bases[0] !== bases[1]) throw refuse(fail, `rope_theta and ${field}.rope_theta differ`, show(bases[0]), show(bases[1]))
  const base = bases.length === 0 ? DEFAULT_BASE : number('rope_theta', bases[0], 1.000001, 1e30, fail)

  const type = typeOf(rope, field, fail)
  const known = [...TYPE_KEYS, ...(TYPES[type] ?? [])]
  for (const [name, value] of Object.entries(rope)) {
    if (known.includes(name) || value === null || (name === 'partial_rotary_factor' && value === 1)) continue
    throw refuse(fail, `${field}.${name} is not supported for the type ${type}`, `only ${known.join(', ')}`, show(value))
  }
  const read = (name: string, min: number, max: number, fallback?: number) => {
    const value = rope[name]
    if ((value === undefined || value === null) && fallback !== undefined) return fallback
    return number(`${field}.${name}`, value, min, max, fail)
  }
  const factor = () => read('factor', 1, 1e6)
  const originalContext = () => read('original_max_position_embeddings', 1, 1e9, context)
  if (type === 'default') return { base, scaling: undefined }
  if (type === 'linear') return { base, scaling: { type, factor: factor() } }
  if (type === 'divided') return { base, scaling: { type, factors: factorsOf(rope.factors, field, fail) } }
  if (type === 'llama3') {
    const [low, high] = [read('low_freq_factor', 1e-6, 1e6), read('high_freq_factor', 1e-6, 1e6)]
    if (high <= low) throw refuse(fail, `${field}.high_freq_factor is not above low_freq_factor`, `above ${low}`, String(high))
    return { base, scaling: { type, factor: factor(), lowFrequencyFactor: low, highFrequencyFactor: high, originalContext: originalContext() } }
  }
  return { base, scaling: yarn(rope, field, read, context, fail) }
}

function yarn(
  rope: Fields,
  field: string,
  read: (name: string, min: number, max: number, fallback?: number) => number,
  context: number,
  fail: Fail,
): YarnScaling {
  const originalContext = read('original_max_position_embeddings', 1, 1e9, context)
  const factor = read('factor', 1, 1e6, Math.max(1, context / originalContext))
  const magnitude = (scale: number) => (factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1)
  const [scale, allScale] = [read('mscale', 0, 1e3, 0), read('mscale_all_dim', 0, 1e3, 0)]
  const attentionFactor = scale > 0 && allScale > 0 ? magnitude(scale) / magnitude(allScale) : magnitude(1)
  const { truncate } = rope
  if (truncate !== undefined && truncate !== null && typeof truncate !== 'boolean')
    throw refuse(fail, `${field}.truncate must be a boolean`, 'true or false', show(truncate))
  return {
    type: 'yarn',
    factor,
    originalContext,
    betaFast: read('beta_fast', 1e-6, 1e6, 32),
    betaSlow: read('beta_slow', 1e-6, 1e6, 1),
    truncate: truncate !== false,
    attentionFactor: read('attention_factor', 1e-6, 1e6, attentionFactor),
    allMagnitude: allScale > 0 ? magnitude(allScale) : 1,
  }
}

/** What ranks need of it for vectors of `dim` values. */
export function ropeShape({ base, scaling }: RopeConfig, dim: number): RopeShape {
  const plain = ropeFrequencies(dim / 2, base)
  switch (scaling?.type) {
    case undefined:
      return { frequencies: plain, amplitude: 1 }
    case 'linear':
      return { frequencies: plain.map((f) => f / scaling.factor), amplitude: 1 }
    case 'divided':
      return { frequencies: plain.map((f, i) => f / dividend(scaling, i, plain.length)), amplitude: 1 }
    case 'llama3':
      return { frequencies: plain.map((f) => llama3Frequency(f, scaling)), amplitude: 1 }
    case 'yarn':
      return { frequencies: yarnFrequencies(plain, base, dim, scaling), amplitude: scaling.attentionFactor }
  }
}

function dividend({ factors }: DividedScaling, i: number, frequencies: number): number {
  const factor = factors[i]
  if (factor !== undefined && factors.length === frequencies) return factor
  throw invalidConfig('the factors of the rope are not one for each frequency', String(frequencies), String(factors.length))
}

function factorsOf(value: unknown, field: string, fail: Fail): readonly number[] {
  const isSound = Array.isArray(value) && value.length > 0 && value.every((f) => typeof f === 'number' && f >= 1e-6 && f <= 1e6)
  if (isSound) return value as number[]
  throw refuse(fail, `${field}.factors is out of range`, 'a list of numbers from 1e-6 to 1e6', show(value))
}

/** Long waves are interpolated, short ones stay, and those between are mixed. */
function llama3Frequency(f: number, s: Llama3Scaling): number {
  const rotations = (s.originalContext * f) / (2 * Math.PI)
  if (rotations < s.lowFrequencyFactor) return f / s.factor
  if (rotations > s.highFrequencyFactor) return f
  const smooth = (rotations - s.lowFrequencyFactor) / (s.highFrequencyFactor - s.lowFrequencyFactor)
  return ((1 - smooth) * f) / s.factor + smooth * f
}

function yarnFrequencies(plain: readonly number[], base: number, dim: number, s: YarnScaling): number[] {
  // Index of the vector that rotates this often over the original context.
  const indexOf = (rotations: number) => (dim * log(s.originalContext / (rotations * 2 * Math.PI))) / (2 * log(base))
  const round = s.truncate ? { low: Math.floor, high: Math.ceil } : { low: (x: number) => x, high: (x: number) => x }
  const low = Math.max(0, round.low(indexOf(s.betaFast)))
  const last = Math.min(dim - 1, round.high(indexOf(s.betaSlow)))
  const high = last === low ? low + 0.001 : last
  return plain.map((f, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)))
    return (f / s.factor) * ramp + f * (1 - ramp)
  })
}

function objectOf(config: Fields, name: string, fail: Fail): Fields | undefined {
  const value = config[name]
  if (value === undefined || value === null) return undefined
  if (typeof value === 'object' && !Array.isArray(value)) return value as Fields
  throw refuse(fail, `${name} is not an object`, 'an object or null', show(value))
}

function typeOf(rope: Fields, field: string, fail: Fail): string {
  const types = [rope.rope_type, rope.type].filter((value) => value !== undefined && value !== null)
  const type = types[0] ?? (rope.factor === undefined ? 'default' : undefined)
  if (typeof type === 'string' && Object.hasOwn(TYPES, type) && types.every((t) => t === type)) return type
  throw refuse(fail, `${field} has a type that is not supported`, Object.keys(TYPES).join(', '), show(type))
}

function number(name: string, value: unknown, min: number, max: number, fail: Fail): number {
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw refuse(fail, `${name} is out of range`, `a number from ${min} to ${max}`, show(value))
}

function refuse(fail: Fail, what: string, expected: string, actual: string): Error {
  return fail({ what, expected, actual, remedy: 'Use a checkpoint whose rotary embedding is one of these, or correct config.json.' })
}
