// Rows of scalars in a shared memory, and copies of them between memories. Knows neither kernels nor models.

export type Scalars = Float32Array | Float64Array

/**
 * [rows, width] scalars at a byte offset, `stride` scalars apart. Views are made once and kept, so that
 * the hot path allocates nothing. It borrows the memory; it never resizes or frees it.
 */
export class Rows {
  readonly #memory: Scalars
  readonly #spans: Scalars[] = []
  readonly #rows: Scalars[] = []
  readonly #froms: Rows[] = []
  readonly ptr: number
  readonly width: number
  /** Scalars between rows. */
  readonly stride: number
  /** Bytes between rows. */
  readonly strideBytes: number

  constructor(memory: Scalars, ptr: number, width: number, stride = width) {
    this.#memory = memory
    this.ptr = ptr
    this.width = width
    this.stride = stride
    this.strideBytes = stride * memory.BYTES_PER_ELEMENT
  }

  /** Row t, [width]. */
  row(t: number): Scalars {
    const made = this.#rows[t]
    if (made) return made
    const start = this.ptr / this.#memory.BYTES_PER_ELEMENT + t * this.stride
    const view = this.#memory.subarray(start, start + this.width)
    this.#rows[t] = view
    return view
  }

  /** Rows 0..n-1 with what lies between them, [(n - 1) * stride + width]. */
  span(n: number): Scalars {
    const made = this.#spans[n]
    if (made) return made
    const start = this.ptr / this.#memory.BYTES_PER_ELEMENT
    const view = this.#memory.subarray(start, start + (n - 1) * this.stride + this.width)
    this.#spans[n] = view
    return view
  }

  /** The same rows, columns start..start+width-1. */
  columns(start: number, width: number): Rows {
    return new Rows(this.#memory, this.ptr + start * this.#memory.BYTES_PER_ELEMENT, width, this.stride)
  }

  /** The same columns, from row t on. */
  from(t: number): Rows {
    const made = this.#froms[t]
    if (made) return made
    const rows = new Rows(this.#memory, this.ptr + t * this.strideBytes, this.width, this.stride)
    this.#froms[t] = rows
    return rows
  }
}

/** Copies n rows of equal width. One call where both are dense. */
export function copyRows(dst: Rows, src: Rows, n: number): void {
  if (n === 1) dst.row(0).set(src.row(0))
  else if (dst.stride === dst.width && src.stride === dst.width) dst.span(n).set(src.span(n))
  else for (let t = 0; t < n; t++) dst.row(t).set(src.row(t))
}

/** dst[t] += src[t] over `width` columns of n rows, in two memories: one addition an element, rounded to the scalars of dst. */
export function addRowsAcross(dst: Rows, src: Rows, width: number, n: number): void {
  for (let t = 0; t < n; t++) {
    const to = dst.row(t)
    const from = src.row(t)
    for (let i = 0; i < width; i++) to[i] = (to[i] as number) + (from[i] as number)
  }
}
