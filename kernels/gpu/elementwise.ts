// The kernels that gpu.js compiles: everything in a step except matrix products and attention. Arrays are [rows][width]; sizes are constants, so
// that loops have fixed bounds. gpu.js computes indices in float32 above 2^24 and divides inexactly, so an element's place comes
// from the thread's own coordinates, never from a quotient or remainder.
import type { GpuJsSource, KernelArray, KernelThread } from './gpu-js.js'

/** [chunks, rows]: sums of squares of 1 / chunks of x's columns from `offset` on; `each` = columns / chunks, rounded up. */
export const sumSquares: GpuJsSource = function (this: KernelThread, x: KernelArray) {
  let sum = 0
  for (let i = 0; i < this.constants.each; i++) {
    const column = this.thread.x * this.constants.each + i
    if (column < this.constants.n) {
      const v = x[this.thread.y][this.constants.offset + column]
      sum += v * v
    }
  }
  return sum
}

/** [n, rows]: x / sqrt(mean of squares + epsilon) * weight. squares: [chunks, rows] of sumSquares. */
export const normalize: GpuJsSource = function (this: KernelThread, x: KernelArray, squares: KernelArray, weight: KernelArray) {
  let sum = 0
  for (let i = 0; i < this.constants.chunks; i++) sum += squares[this.thread.y][i]
  const v = x[this.thread.y][this.constants.offset + this.thread.x]
  return (v / Math.sqrt(sum / this.constants.n + this.constants.epsilon)) * weight[this.thread.x]
}

/** [n, groups, rows]: the same for groups of n columns, each with its own norm; weight: [n, groups]. */
export const normalizeGroups: GpuJsSource = function (this: KernelThread, x: KernelArray, weight: KernelArray) {
  const first = this.constants.offset + this.thread.y * this.constants.n
  let sum = 0
  for (let i = 0; i < this.constants.n; i++) {
    const v = x[this.thread.z][first + i]
    sum += v * v
  }
  return (x[this.thread.z][first + this.thread.x] / Math.sqrt(sum / this.constants.n + this.constants.epsilon)) * weight[this.thread.y][this.thread.x]
}

/** [n, groups, rows]: groups of n columns, those with a weight normed; weight: [n, groups], hasWeight: [groups]. */
export const normalizeSomeGroups: GpuJsSource = function (this: KernelThread, x: KernelArray, weight: KernelArray, hasWeight: KernelArray) {
  const first = this.thread.y * this.constants.n
  let value = x[this.thread.z][first + this.thread.x]
  if (hasWeight[this.thread.y] > 0.5) {
    let sum = 0
    for (let i = 0; i < this.constants.n; i++) {
      const v = x[this.thread.z][first + i]
      sum += v * v
    }
    value = (value / Math.sqrt(sum / this.constants.n + this.constants.epsilon)) * weight[this.thread.y][this.thread.x]
  }
  return value
}

/** [n, rows]: x + v; v: [n]. */
export const addVector: GpuJsSource = function (this: KernelThread, x: KernelArray, v: KernelArray) {
  return x[this.thread.y][this.thread.x] + v[this.thread.x]
}

/**
 * [paddedNope + paddedRope, heads, rows]: heads of `nope` plain columns and `vectors` vectors of 2 * half columns to rotate, `stride`
 * columns from one head to the next; pads are 0. table: [2 * half, rows], cos and sin.
 */
export const rotate: GpuJsSource = function (this: KernelThread, x: KernelArray, table: KernelArray) {
  const first = this.constants.offset + this.thread.y * this.constants.stride
  let value = 0
  if (this.thread.x < this.constants.nope) {
    value = x[this.thread.z][first + this.thread.x]
  }
  let i = this.thread.x - this.constants.paddedNope
  if (i >= 0) {
    const column = first + this.constants.nope + i
    let rotated = 0
    for (let v = 0; v < this.constants.vectors; v++) {
      if (rotated < 0.5) {
        if (i < 2 * this.constants.half) {
          rotated = 1
        } else {
          i = i - 2 * this.constants.half
        }
      }
    }
    if (rotated > 0.5) {
      if (i < this.constants.half) {
        value =
          x[this.thread.z][column] * table[this.thread.z][i] -
          x[this.thread.z][column + this.constants.half] * table[this.thread.z][this.constants.half + i]
      } else {
        value =
          x[this.thread.z][column - this.constants.half] * table[this.thread.z][i] +
          x[this.thread.z][column] * table[this.thread.z][i - this.constants.half]
      }
    } else if (this.thread.x - this.constants.paddedNope < this.constants.rest) {
      value = x[this.thread.z][column]
    }
  }
  return value
}

/** [width, planes, rows]: silu(gate) * up; x: [2 * width * planes, rows], gate then up of each plane. */
export const swiglu: GpuJsSource = function (this: KernelThread, x: KernelArray) {
  const first = 2 * this.thread.y * this.constants.width + this.thread.x
  const gate = x[this.thread.z][first]
  return (gate / (1 + Math.exp(-gate))) * x[this.thread.z][first + this.constants.width]
}

/** [n, rows]: x + (((p0 + p1) + p2) + p3); p: [n, rows, 4]. */
export const addPartials: GpuJsSource = function (this: KernelThread, x: KernelArray, p: KernelArray) {
  const r = this.thread.y
  const c = this.thread.x
  return x[r][c] + (p[0][r][c] + p[1][r][c] + p[2][r][c] + p[3][r][c])
}

/**
 * [width, heads, rows]: of each head, the sum over the planes that have it, ascending, times a factor. p: [*, rows, planes];
 * places: [4, heads], first column of the head in plane i, or -1.
 */
export const sumHeads: GpuJsSource = function (this: KernelThread, p: KernelArray, places: KernelArray) {
  let sum = 0
  let any = 0
  for (let i = 0; i < this.constants.planes; i++) {
    const place = places[this.thread.y][i]
    if (place >= 0) {
      const v = p[i][this.thread.z][place + this.thread.x]
      if (any < 0.5) {
        sum = v
        any = 1
      } else {
        sum = sum + v
      }
    }
  }
  return sum * this.constants.factor
}

/** [n, rows]: x * sigmoid(gate), both from columns of their own on. */
export const gateWith: GpuJsSource = function (this: KernelThread, x: KernelArray, gate: KernelArray) {
  const g = gate[this.thread.y][this.constants.offset + this.thread.x]
  return x[this.thread.y][this.thread.x] / (1 + Math.exp(-g))
}

/** [width, heads, rows]: sum over r of a[h][r] * b[r]; a: [heads * rank, rows], b: [rank * width, rows]. */
export const combineFactors: GpuJsSource = function (this: KernelThread, a: KernelArray, b: KernelArray) {
  let sum = 0
  if (this.thread.x < this.constants.width) {
    for (let r = 0; r < this.constants.rank; r++) {
      sum +=
        a[this.thread.z][this.constants.offset + this.thread.y * this.constants.rank + r] * b[this.thread.z][r * this.constants.width + this.thread.x]
    }
  }
  return sum
}

/** [lanes, vectors, rows]: coefficients by vector and head; places: [2, lanes], first column of a head (or -1) and columns between vectors. */
export const arrangeCoefficients: GpuJsSource = function (this: KernelThread, x: KernelArray, places: KernelArray) {
  const place = places[this.thread.x][0]
  let value = 0
  if (place >= 0) {
    value = x[this.thread.z][place + this.thread.y * places[this.thread.x][1]]
  }
  return value
}

/**
 * [width, heads, rows]: attention of the whole context from its parts: sum of z * exp(m - M) over sum of l * exp(m - M), parts ascending.
 * z: [width, heads * parts * rows]; state: [2, heads * parts * rows], m and l; parts: [rows], how many this row has.
 */
export const combineParts: GpuJsSource = function (this: KernelThread, z: KernelArray, state: KernelArray, parts: KernelArray) {
  const first = this.thread.z * this.constants.parts * this.constants.heads + this.thread.y
  const count = parts[this.constants.firstRow + this.thread.z]
  let most = state[first][0]
  for (let i = 1; i < this.constants.parts; i++) {
    if (i < count) {
      most = Math.max(most, state[first + i * this.constants.heads][0])
    }
  }
  let sum = 0
  let weight = 0
  for (let i = 0; i < this.constants.parts; i++) {
    if (i < count) {
      const row = first + i * this.constants.heads
      const e = Math.exp(state[row][0] - most)
      sum = sum + z[row][this.thread.x] * e
      weight = weight + state[row][1] * e
    }
  }
  return sum / weight
}
