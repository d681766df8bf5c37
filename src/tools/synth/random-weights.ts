// Random weights as bits of a stored type: the same for the same seed and tensor name on every engine.
import { bf16FromF32Bits, f16FromF32Bits } from '../../../kernels/float-formats.js'

export type SynthType = 'bf16' | 'f16' | 'f32'

export const SYNTH_BYTES: Readonly<Record<SynthType, number>> = { bf16: 2, f16: 2, f32: 4 }

const ENTRIES = 65536

function mix(h: number): number {
  let v = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  v = Math.imul(v ^ (v >>> 13), 0xc2b2ae35)
  return (v ^ (v >>> 16)) >>> 0
}

/** Standard normal values (sums of twelve uniform ones, by additions alone), mean 0 and variance 1 exactly enough. */
function normalTable(): Float64Array {
  let state = 1
  return Float64Array.from({ length: ENTRIES }, () => {
    let sum = -6
    for (let i = 0; i < 12; i++) {
      state = (state + 0x9e3779b9) >>> 0
      sum += mix(state) / 4294967296
    }
    return sum
  })
}

const NORMAL = normalTable()

/** A stream of weights of one tensor. */
export class RandomWeights {
  readonly #table: Uint16Array | Uint32Array
  #state: number

  /** deviation: of the normal distribution they are drawn from; 0 gives ones. */
  constructor(type: SynthType, seed: number, tensor: string, deviation: number) {
    const values = deviation === 0 ? new Float32Array(ENTRIES).fill(1) : Float32Array.from(NORMAL, (v) => v * deviation)
    const bits = new Uint32Array(values.buffer)
    this.#table = type === 'f32' ? bits : Uint16Array.from(bits, type === 'bf16' ? bf16FromF32Bits : f16FromF32Bits)
    let hash = mix(seed ^ mix(Math.floor(seed / 4294967296) + 0x9e3779b9))
    for (let i = 0; i < tensor.length; i++) hash = mix(hash ^ tensor.charCodeAt(i))
    this.#state = hash
  }

  /** Fills `n` elements from the start of the buffer. */
  fill(buffer: ArrayBuffer, n: number): void {
    const table = this.#table
    const out = table instanceof Uint32Array ? new Uint32Array(buffer) : new Uint16Array(buffer)
    let state = this.#state
    for (let i = 0; i < n; i++) {
      state = (state + 0x9e3779b9) | 0
      let v = Math.imul(state ^ (state >>> 16), 0x85ebca6b)
      v = Math.imul(v ^ (v >>> 13), 0xc2b2ae35)
      out[i] = table[(v >>> 16) & 0xffff] as number
    }
    this.#state = state
  }
}
