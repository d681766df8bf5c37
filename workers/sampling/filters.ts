// Filters of what may be sampled: the weights of excluded tokens become 0. The largest weight is 1. Sums are in float64 and in a fixed
// order; ties go to the lowest id. Buffers are made once.
import { log } from '../../kernels/portable-math.js'
import type { Scalars } from '../../kernels/rows.js'

export class TokenFilters {
  readonly #n: number
  readonly #ids: Int32Array
  /** Sort keys of ids: negative weights, or distances of surprise. */
  readonly #keys: Float64Array
  readonly #kept: Uint8Array
  readonly #byKey = (a: number, b: number) => (this.#keys[a] as number) - (this.#keys[b] as number) || a - b

  constructor(vocab: number) {
    this.#n = vocab
    this.#ids = new Int32Array(vocab)
    this.#keys = new Float64Array(vocab)
    this.#kept = new Uint8Array(vocab)
  }

  /**
   * Keeps the topK largest weights (0: all); of these the most likely ones until their share reaches topP (1: all); of these the ones
   * of at least minP times the largest.
   */
  keepMostLikely(weights: Scalars, topK: number, topP: number, minP: number): void {
    if (topK > 0 && topK < this.#n) this.#keepFirst(weights, topK, Number.POSITIVE_INFINITY)
    if (topP < 1) this.#keepFirst(weights, this.#n, topP * this.#total(weights))
    if (minP > 0) for (let i = 0; i < this.#n; i++) if ((weights[i] as number) < minP) weights[i] = 0
  }

  /** Keeps tokens in the order of how near their surprise is to the entropy, until their share reaches `share` (1: all). */
  keepTypical(weights: Scalars, logits: Scalars, temperature: number, share: number): void {
    if (share >= 1) return
    const total = this.#total(weights)
    let top = Number.NEGATIVE_INFINITY
    for (let i = 0; i < this.#n; i++) top = Math.max(top, logits[i] as number)
    const logTotal = log(total)
    let entropy = 0
    let count = 0
    for (let i = 0; i < this.#n; i++) {
      const w = weights[i] as number
      if (w <= 0) continue
      this.#ids[count++] = i
      const surprise = logTotal - ((logits[i] as number) - top) / temperature
      this.#keys[i] = surprise
      entropy += (w / total) * surprise
    }
    for (let c = 0; c < count; c++) {
      const id = this.#ids[c] as number
      this.#keys[id] = Math.abs((this.#keys[id] as number) - entropy)
    }
    this.#keep(weights, count, this.#n, share * total)
  }

  #total(weights: Scalars): number {
    let total = 0
    for (let i = 0; i < this.#n; i++) total += weights[i] as number
    return total
  }

  /** Keeps the largest weights: at most `max` of them, and only as many as it takes for their sum to reach `mass`. */
  #keepFirst(weights: Scalars, max: number, mass: number): void {
    const keys = this.#keys
    for (let i = 0; i < this.#n; i++) keys[i] = -(weights[i] as number)
    // Sorting few ids is fast and usually enough: those above a bound, which is lowered until there are enough of them.
    for (let bound = 1 / 16; ; bound = bound < 1e-12 ? 0 : bound / 256) {
      let count = 0
      let sum = 0
      for (let i = 0; i < this.#n; i++) {
        const w = weights[i] as number
        if (w <= 0 || w < bound) continue
        this.#ids[count++] = i
        sum += w
      }
      // The sum in sorted order may round to less than this one: hence the margin, and at last a bound of 0.
      if (bound > 0 && count < max && sum < mass * (1 + 1e-9)) continue
      this.#keep(weights, count, max, mass)
      return
    }
  }

  /** The same among the first `count` ids, in ascending order of their keys. */
  #keep(weights: Scalars, count: number, max: number, mass: number): void {
    const ids = this.#ids.subarray(0, count).sort(this.#byKey)
    this.#kept.fill(0)
    let sum = 0
    for (let i = 0; i < count && i < max; i++) {
      const id = ids[i] as number
      this.#kept[id] = 1
      sum += weights[id] as number
      if (sum >= mass) break
    }
    for (let i = 0; i < this.#n; i++) if (this.#kept[i] === 0) weights[i] = 0
  }
}
