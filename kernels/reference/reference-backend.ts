// The oracle: the same operations in plain float64 JavaScript over the same packed weights and pointers.
// Optimized for readability. Activations, exchange slots and cache are float64; a cached row is rounded to its format when it is written,
// queries never are.
import type { CacheFormat, CacheRow, KernelBackend, UnitGeometry } from '../backend.js'
import { mostRows, PAGE_TOKENS } from '../cache-format.js'
import { cpuCacheFormat } from '../cache-formats.js'
import type { PackedMatrix } from '../packing.js'
import { exp, log } from '../portable-math.js'
import { Rows } from '../rows.js'
import { WEIGHT_FORMATS } from '../weight-formats.js'

const BYTES = 8
const LOWEST = -Number.MAX_VALUE

export class ReferenceBackend implements KernelBackend {
  readonly backend = 'reference'
  readonly scalarBytes = BYTES
  readonly scalars: Float64Array
  weightBytesRead = 0
  cacheBytesRead = 0
  readonly #f32: Float32Array
  readonly #view: DataView

  constructor(memory: SharedArrayBuffer) {
    this.scalars = new Float64Array(memory)
    this.#f32 = new Float32Array(memory)
    this.#view = new DataView(memory)
  }

  rows(ptr: number, width: number, stride = width): Rows {
    return new Rows(this.scalars, ptr, width, stride)
  }

  #at(rows: Rows, t: number): number {
    return rows.ptr / BYTES + t * rows.stride
  }

  matmul(w: PackedMatrix, x: Rows, y: Rows, tokens: number, _scratch: number): void {
    const s = this.scalars
    const { read } = WEIGHT_FORMATS[w.format]
    for (let b = 0; b < w.batch; b++) {
      for (let r = 0; r < w.rows; r++) {
        for (let t = 0; t < tokens; t++) s[this.#at(y, t) + b * w.outStride + r] = 0
        for (let k = 0; k < w.cols; k++) {
          const weight = read(this.#view, w.ptr + b * w.batchBytes, r, k, w.cols)
          for (let t = 0; t < tokens; t++) {
            const out = this.#at(y, t) + b * w.outStride + r
            s[out] = (s[out] as number) + weight * (s[this.#at(x, t) + b * w.inStride + k] as number)
          }
        }
      }
    }
    this.weightBytesRead += w.bytes
  }

  rmsNorm(x: Rows, weight: number, y: Rows, n: number, tokens: number, epsilon: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      let sum = 0
      for (let i = 0; i < n; i++) sum += (s[this.#at(x, t) + i] as number) ** 2
      const r = 1 / Math.sqrt(sum / n + epsilon)
      for (let i = 0; i < n; i++) s[this.#at(y, t) + i] = (s[this.#at(x, t) + i] as number) * r * (this.#f32[weight / 4 + i] as number)
    }
  }

  rmsNormHeads(x: Rows, headStride: number, heads: number, weight: number, n: number, tokens: number, epsilon: number): void {
    for (let h = 0; h < heads; h++) {
      const head = x.columns(h * headStride, n)
      this.rmsNorm(head, weight, head, n, tokens, epsilon)
    }
  }

  rope(x: Rows, headStride: number, heads: number, half: number, table: Rows, tokens: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const p = this.#at(x, t) + h * headStride
        for (let i = 0; i < half; i++) {
          const a = s[p + i] as number
          const b = s[p + half + i] as number
          const cos = s[this.#at(table, t) + i] as number
          const sin = s[this.#at(table, t) + half + i] as number
          s[p + i] = a * cos - b * sin
          s[p + half + i] = a * sin + b * cos
        }
      }
    }
  }

  swiglu(gate: Rows, up: Rows, n: number, tokens: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < n; i++) {
        const g = s[this.#at(gate, t) + i] as number
        s[this.#at(gate, t) + i] = (g / (1 + exp(-g))) * (s[this.#at(up, t) + i] as number)
      }
    }
  }

  gateRows(x: Rows, gate: Rows, n: number, tokens: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < n; i++) s[this.#at(x, t) + i] = (s[this.#at(x, t) + i] as number) / (1 + exp(-(s[this.#at(gate, t) + i] as number)))
    }
  }

  combineFactors(dst: Rows, a: Rows, b: Rows, heads: number, rank: number, width: number, tokens: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        for (let i = 0; i < width; i++) {
          let sum = 0
          for (let r = 0; r < rank; r++) sum += (s[this.#at(a, t) + h * rank + r] as number) * (s[this.#at(b, t) + r * width + i] as number)
          s[this.#at(dst, t) + h * width + i] = sum
        }
      }
    }
  }

  sumPartials(dst: Rows, sources: readonly Rows[], n: number, tokens: number, factor: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < n; i++) {
        let sum = s[this.#at(sources[0] as Rows, t) + i] as number
        for (const source of sources.slice(1)) sum += s[this.#at(source, t) + i] as number
        s[this.#at(dst, t) + i] = sum * factor
      }
    }
  }

  addRows(x: Rows, y: Rows, n: number, tokens: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < n; i++) s[this.#at(x, t) + i] = (s[this.#at(x, t) + i] as number) + (s[this.#at(y, t) + i] as number)
    }
  }

  addVector(x: Rows, vector: number, n: number, tokens: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < n; i++) s[this.#at(x, t) + i] = (s[this.#at(x, t) + i] as number) + (this.#f32[vector / 4 + i] as number)
    }
  }

  gatherRow(w: PackedMatrix, row: number, dst: Rows): void {
    const { read } = WEIGHT_FORMATS[w.format]
    for (let k = 0; k < w.cols; k++) this.scalars[dst.ptr / BYTES + k] = read(this.#view, w.ptr, row, k, w.cols)
  }

  writeCacheRow(dst: number, src: Rows, t: number, row: CacheRow): void {
    const from = this.#at(src, t)
    const cached = this.scalars.subarray(dst / BYTES, dst / BYTES + row.paddedWidth)
    cached.set(this.scalars.subarray(from, from + row.width))
    cached.fill(0, row.width)
    cpuCacheFormat(row.format).round(cached, row)
  }

  copyBytes(dst: number, src: number, bytes: number): void {
    this.scalars.copyWithin(dst / BYTES, src / BYTES, (src + bytes) / BYTES)
  }

  loadQueries(
    dst: number,
    src: Rows,
    t: number,
    rows: number,
    headStride: number,
    heads: number,
    lanes: number,
    n: number,
    _format: CacheFormat,
  ): void {
    const first = (h: number) => this.#at(src, t + Math.floor(h / heads)) + (h % heads) * headStride
    for (let i = 0; i < n; i++) {
      for (let h = 0; h < lanes; h++) {
        this.scalars[dst / BYTES + i * lanes + h] = h < rows * heads ? (this.scalars[first(h) + i] as number) : 0
      }
    }
  }

  #dot(query: number, cached: number, width: number, lanes: number, h: number): number {
    let sum = 0
    for (let i = 0; i < width; i++) sum += (this.scalars[query / BYTES + i * lanes + h] as number) * (this.scalars[cached + i] as number)
    return sum
  }

  dotPage(query: number, page: number, { paddedWidth, keyWidth, bytes }: CacheRow, out: number, lanes: number, tokens: number): void {
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < lanes; h++) {
        this.scalars[out / BYTES + t * lanes + h] = this.#dot(query, page / BYTES + t * paddedWidth, keyWidth, lanes, h)
      }
    }
    this.cacheBytesRead += bytes * tokens
  }

  beginAttention(unit: UnitGeometry, z: Rows, t: number): void {
    const state = unit.state / BYTES
    this.scalars.fill(LOWEST, state, state + unit.lanes)
    this.scalars.fill(0, state + unit.lanes, state + 2 * unit.lanes)
    this.scalars.fill(0, this.#at(z, t), this.#at(z, t) + unit.heads * unit.valueWidth)
  }

  attendPage(unit: UnitGeometry, page: number, shared: number, z: Rows, t: number, tokens: number): void {
    const s = this.scalars
    const first = page / BYTES
    const { factors, row } = unit
    /** Coefficient j (keys', then values') of head h for cached token i; 1 without factors. */
    const coefficient = (i: number, j: number, h: number) =>
      factors ? (s[shared / BYTES + i * factors.row.paddedWidth + j * unit.lanes + h] as number) : 1
    const rank = factors?.rank ?? 1
    for (let h = 0; h < unit.heads; h++) {
      const state = unit.state / BYTES + h
      const scores: number[] = []
      const tileRow = Math.floor(h / unit.rowHeads)
      const seen = Math.min(PAGE_TOKENS, tokens + tileRow)
      const sharedHead = unit.sharedOffset + tileRow * unit.sharedRowHeads + (h % unit.rowHeads)
      for (let i = 0; i < seen; i++) {
        let score = 0
        for (let r = 0; r < rank; r++) {
          const key = first + i * row.paddedWidth + r * row.keyWidth
          score += coefficient(i, r, h) * this.#dot(unit.query, key, row.keyWidth, unit.lanes, h)
        }
        if (!factors && shared !== 0) score += s[shared / BYTES + i * unit.sharedLanes + sharedHead] as number
        scores.push(score * unit.scale)
      }
      const previous = s[state] as number
      const max = scores.reduce((m, v) => (m < v ? v : m), previous)
      const alpha = exp(previous - max)
      const p = scores.map((v) => exp(v - max))
      s[state] = max
      s[state + unit.lanes] = p.reduce((sum, v) => sum + v, (s[state + unit.lanes] as number) * alpha)
      for (let v = 0; v < unit.valueWidth; v++) {
        const at = this.#at(z, t) + h * unit.valueWidth + v
        let sum = (s[at] as number) * alpha
        for (let r = 0; r < rank; r++) {
          const value = first + unit.valueOffset + r * (factors?.valueStride ?? 0) + v
          for (let i = 0; i < seen; i++) sum += (p[i] as number) * coefficient(i, rank + r, h) * (s[value + i * row.paddedWidth] as number)
        }
        s[at] = sum
      }
    }
    this.cacheBytesRead += (row.bytes + (factors?.row.bytes ?? 0)) * mostRows(unit, tokens)
  }

  finishAttention(unit: UnitGeometry, z: Rows, t: number): void {
    for (let h = 0; h < unit.heads; h++) {
      const sum = this.scalars[unit.state / BYTES + unit.lanes + h] as number
      for (let v = 0; v < unit.valueWidth; v++) {
        const at = this.#at(z, t) + h * unit.valueWidth + v
        this.scalars[at] = (this.scalars[at] as number) / sum
      }
    }
  }

  combinePartials(dst: Rows, z: readonly Rows[], toMax: number, toSum: number, heads: number, width: number, tokens: number): void {
    const s = this.scalars
    for (let t = 0; t < tokens; t++) {
      const at = z.map((rows) => this.#at(rows, t))
      for (let h = 0; h < heads; h++) {
        const sums = at.map((first) => s[first + toSum + h] as number)
        const maxima = at.map((first) => s[first + toMax + h] as number)
        const largest = maxima.reduce((m, v, i) => (sums[i] !== 0 && v > m ? v : m), LOWEST)
        const weights = maxima.map((m, i) => (sums[i] === 0 ? 0 : exp(m - largest)))
        const weighted = (of: (i: number) => number) => weights.reduce((sum, w, i) => sum + w * of(i), 0)
        const total = weighted((i) => sums[i] as number)
        for (let v = h * width; v < (h + 1) * width; v++) s[this.#at(dst, t) + v] = weighted((i) => s[(at[i] as number) + v] as number) / total
      }
    }
  }

  argmax(logits: Rows, t: number, n: number): number {
    const row = this.scalars.subarray(this.#at(logits, t), this.#at(logits, t) + n)
    let id = -1
    let best = Number.NEGATIVE_INFINITY
    for (let i = 0; i < n; i++) {
      const v = row[i] as number
      if (Number.isNaN(v)) return -1
      if (v > best) {
        best = v
        id = i
      }
    }
    return best < Number.POSITIVE_INFINITY ? id : -1
  }

  logProbability(logits: Rows, t: number, n: number, id: number): number {
    const top = this.argmax(logits, t, n)
    if (top < 0) return Number.NaN
    const row = this.scalars.subarray(this.#at(logits, t), this.#at(logits, t) + n)
    const max = row[top] as number
    return (row[id] as number) - max - log(row.reduce((sum, v) => sum + exp(v - max), 0))
  }

  softWeights(logits: Rows, t: number, n: number, temperature: number, weights: number): number {
    const top = this.argmax(logits, t, n)
    if (top < 0) return -1
    const first = this.#at(logits, t)
    const max = this.scalars[first + top] as number
    for (let i = 0; i < n; i++) this.scalars[weights / 8 + i] = exp(((this.scalars[first + i] as number) - max) / temperature)
    return top
  }

  sample(logits: Rows, t: number, n: number, temperature: number, u: number, _scratch: number): number {
    const top = this.argmax(logits, t, n)
    if (top < 0) return -1
    const first = this.#at(logits, t)
    const max = this.scalars[first + top] as number
    const weights = Array.from({ length: n }, (_, i) => exp(((this.scalars[first + i] as number) - max) / temperature))
    const threshold = u * weights.reduce((a, b) => a + b, 0)
    let sum = 0
    for (let i = 0; i < n; i++) {
      sum += weights[i] as number
      if (sum > threshold) return i
    }
    return top
  }
}
