// Token embeddings row by row. Packed tiles have a token's columns 64 bytes apart, which takes 40 us a row of 3072 columns; a prompt's
// thousand rows a step would take longer than the device does. A copy in row order goes to the device as it is, which widens it to float32.
import { BF16_POSITION } from '../../kernels/float-weights.js'
import { bufferOf } from '../../kernels/open-backend.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import { perShard } from '../collectives/exchange.js'
import { cut } from '../layout/cuts.js'
import type { ModelLayout } from '../layout/model-layout.js'
import { type ModelShape, SHARDS } from '../protocol.js'
import type { WeightMemories } from './weights.js'

/** Largest copy. */
const MAX_BYTES = 512 << 20
const TILE_ROWS = 32

export class Embeddings {
  readonly #rows: Uint16Array
  readonly #width: number

  private constructor(rows: Uint16Array, width: number) {
    this.#rows = rows
    this.#width = width
  }

  /** false: the embeddings are not bf16, or the copy would be larger than MAX_BYTES. */
  static canCopy({ vocab, embed }: ModelShape, { shards }: ModelLayout): boolean {
    return 2 * vocab * embed <= MAX_BYTES && shards.every(({ embedding }) => WEIGHT_FORMATS[embedding.format].gatherRow === 'gatherRowBf16')
  }

  /** undefined: see canCopy. */
  static copy(shape: ModelShape, layout: ModelLayout, memories: WeightMemories): Embeddings | undefined {
    if (!Embeddings.canCopy(shape, layout)) return undefined
    const { vocab, embed } = shape
    const { shards } = layout
    const rows = new Uint16Array(vocab * embed)
    const starts = perShard((s) => cut(vocab, s))
    for (let s = 0; s < SHARDS; s++) {
      const matrix = shards[s]?.embedding
      const memory = memories.shards[s]
      if (!matrix || !memory) throw new RangeError(`no embeddings of shard ${s}`)
      const from = new Uint16Array(bufferOf(memory), matrix.ptr, matrix.bytes / 2)
      const first = (starts[s] as number) * embed
      for (let tile = 0; tile < matrix.rows; tile += TILE_ROWS) {
        const height = Math.min(TILE_ROWS, matrix.rows - tile)
        const places = Array.from({ length: height }, (_, r) => tile * embed + (BF16_POSITION[r] as number))
        for (const [r, place] of places.entries()) {
          const to = first + (tile + r) * embed
          for (let c = 0; c < embed; c++) rows[to + c] = from[place + c * TILE_ROWS] as number
        }
      }
    }
    return new Embeddings(rows, embed)
  }

  /** 32-bit words of a row, the last one half empty for an odd width. */
  static words(width: number): number {
    return Math.ceil(width / 2)
  }

  /** Copies a token's embedding to row t of `to`, bf16. */
  copy(token: number, to: Uint16Array, t: number): void {
    to.set(this.#rows.subarray(token * this.#width, (token + 1) * this.#width), t * 2 * Embeddings.words(this.#width))
  }
}
