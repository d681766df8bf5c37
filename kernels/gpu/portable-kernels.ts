// gpu.js versions of the hand-written kernels, for devices that lack what those need: float32 weights and cache, no workgroup memory,
// one thread for each result. They are slow and run on every device. The rules of elementwise.ts apply. 64 is PAGE_TOKENS: a source has no
// constants of its own, and a division by a power of two is exact.
import type { GpuJsSource, KernelArray, KernelThread } from './gpu-js.js'

/** [32, tiles, rows]: products of each tile's rows with x. w: [32, columns]; tiles: [3, n], first column of w, first of x, columns. */
export const tileProducts: GpuJsSource = function (this: KernelThread, w: KernelArray, tiles: KernelArray, x: KernelArray) {
  const first = tiles[this.thread.y][0]
  const at = tiles[this.thread.y][1]
  const k = tiles[this.thread.y][2]
  let sum = 0
  for (let i = 0; i < this.constants.k; i++) {
    if (i < k) {
      sum += w[first + i][this.thread.x] * x[this.thread.z][at + i]
    }
  }
  return sum
}

/** [width, rows]: each product in its column. places: [2, width], tile (or -1: 0) and row of it. */
export const placeProducts: GpuJsSource = function (this: KernelThread, products: KernelArray, places: KernelArray) {
  const tile = places[this.thread.x][0]
  let value = 0
  if (tile >= 0) {
    value = products[this.thread.y][tile][places[this.thread.x][1]]
  }
  return value
}

/**
 * [tokens, heads, rows]: scores. q: [*, T]; stream: [row width, cached rows]; pages: block tables; rows: [2, T], first entry of the block
 * table and length; heads: [4, heads], first row of the stream's region, first column of the query, of the rope query, lane.
 */
export const scoreTokens: GpuJsSource = function (
  this: KernelThread,
  q: KernelArray,
  stream: KernelArray,
  pages: KernelArray,
  rows: KernelArray,
  heads: KernelArray,
) {
  const t = this.constants.firstRow + this.thread.z
  let sum = 0
  if (this.thread.x < rows[t][1]) {
    const page = Math.floor(this.thread.x / 64)
    const row = pages[rows[t][0] + page] * 64 + this.thread.x - page * 64
    const first = heads[this.thread.y][0]
    const query = heads[this.thread.y][1]
    for (let k = 0; k < this.constants.keyWidth; k++) {
      sum += q[t][query + k] * stream[first + row][k]
    }
  }
  return sum * this.constants.scale
}

/** The same with rope keys that all heads share. qr: [*, T]; ropes: [row width, cached rows]. */
export const scoreTokensWithRope: GpuJsSource = function (
  this: KernelThread,
  q: KernelArray,
  stream: KernelArray,
  pages: KernelArray,
  rows: KernelArray,
  heads: KernelArray,
  qr: KernelArray,
  ropes: KernelArray,
) {
  const t = this.constants.firstRow + this.thread.z
  let sum = 0
  if (this.thread.x < rows[t][1]) {
    const page = Math.floor(this.thread.x / 64)
    const row = pages[rows[t][0] + page] * 64 + this.thread.x - page * 64
    const first = heads[this.thread.y][0]
    const query = heads[this.thread.y][1]
    const ropeQuery = heads[this.thread.y][2]
    for (let k = 0; k < this.constants.keyWidth; k++) {
      sum += q[t][query + k] * stream[first + row][k]
    }
    for (let k = 0; k < this.constants.ropeDim; k++) {
      sum += qr[t][ropeQuery + k] * ropes[row][k]
    }
  }
  return sum * this.constants.scale
}

/** The same where keys are sums of `rank` vectors. factors: [2 * rank * lanes, cached rows]. */
export const scoreFactors: GpuJsSource = function (
  this: KernelThread,
  q: KernelArray,
  stream: KernelArray,
  pages: KernelArray,
  rows: KernelArray,
  heads: KernelArray,
  factors: KernelArray,
) {
  const t = this.constants.firstRow + this.thread.z
  let sum = 0
  if (this.thread.x < rows[t][1]) {
    const page = Math.floor(this.thread.x / 64)
    const row = pages[rows[t][0] + page] * 64 + this.thread.x - page * 64
    const first = heads[this.thread.y][0]
    const query = heads[this.thread.y][1]
    const lane = heads[this.thread.y][3]
    for (let r = 0; r < this.constants.rank; r++) {
      let part = 0
      for (let k = 0; k < this.constants.keyWidth; k++) {
        part += q[t][query + k] * stream[first + row][r * this.constants.keyWidth + k]
      }
      sum += part * factors[row][r * this.constants.lanes + lane]
    }
  }
  return sum * this.constants.scale
}

/** [2, heads, rows]: the largest score of a row, and the sum of exp(score - largest). */
export const softmaxStates: GpuJsSource = function (this: KernelThread, scores: KernelArray, rows: KernelArray) {
  const length = rows[this.constants.firstRow + this.thread.z][1]
  let most = scores[this.thread.z][this.thread.y][0]
  for (let i = 1; i < this.constants.tokens; i++) {
    if (i < length) {
      most = Math.max(most, scores[this.thread.z][this.thread.y][i])
    }
  }
  let sum = 0
  if (this.thread.x > 0) {
    for (let i = 0; i < this.constants.tokens; i++) {
      if (i < length) {
        sum += Math.exp(scores[this.thread.z][this.thread.y][i] - most)
      }
    }
  } else {
    sum = most
  }
  return sum
}

/** [columns, heads, rows]: weighted sums of the values. states: of softmaxStates. */
export const sumValues: GpuJsSource = function (
  this: KernelThread,
  scores: KernelArray,
  states: KernelArray,
  stream: KernelArray,
  pages: KernelArray,
  rows: KernelArray,
  heads: KernelArray,
) {
  const t = this.constants.firstRow + this.thread.z
  const length = rows[t][1]
  const first = heads[this.thread.y][0]
  const most = states[this.thread.z][this.thread.y][0]
  let sum = 0
  if (this.thread.x < this.constants.valueWidth) {
    for (let i = 0; i < this.constants.tokens; i++) {
      if (i < length) {
        const page = Math.floor(i / 64)
        const row = pages[rows[t][0] + page] * 64 + i - page * 64
        sum += Math.exp(scores[this.thread.z][this.thread.y][i] - most) * stream[first + row][this.constants.valueOffset + this.thread.x]
      }
    }
  }
  return sum / states[this.thread.z][this.thread.y][1]
}

/** The same where values are sums of `rank` vectors. */
export const sumFactors: GpuJsSource = function (
  this: KernelThread,
  scores: KernelArray,
  states: KernelArray,
  stream: KernelArray,
  pages: KernelArray,
  rows: KernelArray,
  heads: KernelArray,
  factors: KernelArray,
) {
  const t = this.constants.firstRow + this.thread.z
  const length = rows[t][1]
  const first = heads[this.thread.y][0]
  const lane = heads[this.thread.y][3]
  const most = states[this.thread.z][this.thread.y][0]
  let sum = 0
  if (this.thread.x < this.constants.valueWidth) {
    for (let i = 0; i < this.constants.tokens; i++) {
      if (i < length) {
        const page = Math.floor(i / 64)
        const row = pages[rows[t][0] + page] * 64 + i - page * 64
        let value = 0
        for (let r = 0; r < this.constants.rank; r++) {
          const column = this.constants.valueOffset + r * this.constants.valueStride + this.thread.x
          value += stream[first + row][column] * factors[row][(this.constants.rank + r) * this.constants.lanes + lane]
        }
        sum += Math.exp(scores[this.thread.z][this.thread.y][i] - most) * value
      }
    }
  }
  return sum / states[this.thread.z][this.thread.y][1]
}
