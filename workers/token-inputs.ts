// What a token brings to a step on every backend: its row of the embedding, out of whichever shard has it, and the rotary table of
// its position. Runs on the CPU over the shards' memories.
import { cosSin } from '../kernels/portable-math.js'
import type { Rows, Scalars } from '../kernels/rows.js'
import { perShard } from './collectives/exchange.js'
import type { ShardWork } from './cpu/shard-work.js'
import { cut } from './layout/cuts.js'
import { type ModelShape, SHARDS } from './protocol.js'

export class TokenInputs {
  readonly #shards: readonly ShardWork[]
  /** First token id of each shard. */
  readonly #starts: readonly number[]
  readonly #frequencies: readonly number[]
  readonly #amplitude: number
  /** Cosine and sine in float64, before they are rounded to the row. */
  readonly #pair = new Float64Array(2)

  constructor(shape: ModelShape, shards: readonly ShardWork[]) {
    this.#shards = shards
    this.#starts = perShard((s) => cut(shape.vocab, s))
    this.#frequencies = shape.rope.frequencies
    this.#amplitude = shape.rope.amplitude
  }

  /** [1, embed]: valid until the next call. */
  embedding(token: number): Rows {
    let s = SHARDS - 1
    while (s > 0 && token < (this.#starts[s] as number)) s--
    const shard = this.#shards[s] as ShardWork
    shard.kernels.gatherRow(shard.embedding, token - (this.#starts[s] as number), shard.normed)
    return shard.normed
  }

  /** Writes cos half and sin half of a position to a row of ropeDim scalars. */
  rope(position: number, row: Scalars): void {
    const half = this.#frequencies.length
    const pair = this.#pair
    for (let i = 0; i < half; i++) {
      cosSin(position * (this.#frequencies[i] as number), pair, 0, 1)
      row[i] = (pair[0] as number) * this.#amplitude
      row[half + i] = (pair[1] as number) * this.#amplitude
    }
  }
}
