// One shape of attention on a GPU: its cache, its kernels, a check against float64, and its times. Pages are in shuffled order, as in
// a cache that has been in use for a while.
/// <reference types="@webgpu/types" />
import { PAGE_TOKENS } from '../kernels/cache-format.js'
import type { Dispatch } from '../kernels/gpu/program.js'
import { tensorAttention } from '../kernels/gpu/wgsl/tensor-attention.js'
import { combineGroups, combineTensorParts, packQueries, slotTable } from '../kernels/gpu/wgsl/tensor-parts.js'
import { packedQueryWidth, planTensorAttention, SIDE, type TensorShape, type TensorTiling } from '../kernels/gpu/wgsl/tensor-shape.js'
import type { AttentionWidths } from './attention-case.js'
import { fillRandom, type GpuBench, ONE_ROW, randomF16, readBack, readOnly } from './gpu-measure.js'

function shuffled(n: number): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i)
  let state = 12345
  for (let i = n - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const j = state % (i + 1)
    const kept = order[i] as number
    order[i] = order[j] as number
    order[j] = kept
  }
  return order
}

/** Overrides the engine's choice. */
export interface Chosen {
  readonly tiling: TensorTiling
  readonly parts: number
}

export class AttentionCase {
  readonly #gpu: GpuBench
  readonly widths: AttentionWidths
  readonly shape: TensorShape
  readonly tiling: TensorTiling
  readonly #pages: Uint32Array
  readonly #cache: GPUBuffer
  readonly #buffers: Readonly<Record<'pages' | 'queries' | 'packed' | 'entries' | 'sizes' | 'z' | 'state' | 'out' | 'slots' | 'start', GPUBuffer>>
  readonly #queries: Float32Array

  private constructor(gpu: GpuBench, widths: AttentionWidths, tokens: number, chosen: Chosen | undefined) {
    const { heads, latent, rope } = widths
    const { program, context } = gpu
    this.#gpu = gpu
    this.widths = widths
    const pages = Math.ceil(tokens / PAGE_TOKENS)
    const sizes = {
      rowWidth: latent,
      keyOffset: 0,
      keyWidth: latent,
      valueOffset: 0,
      valueWidth: latent,
      ropeDim: rope,
      ropeRowWidth: rope,
    }
    const planned = planTensorAttention(sizes, heads, context.adapter.workgroupStorage)
    if (!planned) throw new Error('the tensor-core kernel has no tiling for this shape')
    this.tiling = chosen?.tiling ?? planned.tiling
    const parts = chosen?.parts ?? planned.workgroups
    this.shape = {
      ...sizes,
      groups: [{ region: 0 }],
      groupHeads: heads,
      rowHeads: heads,
      queryRows: 1,
      slots: Array.from({ length: heads }, (_, h) => ({ query: h * latent, rope: heads * latent + h * rope })),
      queryWidth: heads * (latent + rope),
      ropeWidth: heads * (latent + rope),
      ropeRegion: pages * PAGE_TOKENS * latent,
      scale: 1 / Math.sqrt(128 + rope),
      parts,
    }
    this.#pages = shuffled(pages)
    this.#queries = Float32Array.from({ length: heads * (latent + rope) }, (_, i) => 1.5 * randomF16(i + 7777))
    this.#cache = program.buffer(pages * PAGE_TOKENS * (latent + rope) * 2)
    const uniform = (value: number) => program.uniform(Uint32Array.of(value, 0, 0, 0))
    this.#buffers = {
      pages: program.upload(this.#pages),
      queries: program.upload(this.#queries),
      packed: program.buffer((heads + SIDE) * packedQueryWidth(this.shape) * 2),
      entries: program.upload(Uint32Array.of(0, 1, 0, 0)),
      sizes: program.uniform(Uint32Array.of(1, parts, 1, 0)),
      z: program.buffer(parts * heads * latent * 4),
      state: program.buffer(parts * heads * 8),
      out: program.buffer(heads * latent * 4),
      slots: program.upload(slotTable(this.shape)),
      start: uniform(0),
    }
  }

  /** Opens a cache of `tokens` random rows. */
  static async open(gpu: GpuBench, widths: AttentionWidths, tokens: number, chosen?: Chosen): Promise<AttentionCase> {
    const opened = new AttentionCase(gpu, widths, tokens, chosen)
    await fillRandom(gpu, opened.#cache, 'f16')
    return opened
  }

  get bytesPerToken(): number {
    return 2 * (this.widths.latent + this.widths.rope)
  }

  /** Attention over the tokens of a block table that begins at `table`: queries to f16, parts, combining. */
  async dispatches(tokens: number, table: number): Promise<Dispatch[]> {
    const { program } = this.#gpu
    const { shape, tiling } = this
    const b = this.#buffers
    const all = Math.ceil(tokens / PAGE_TOKENS)
    const pages = Math.ceil(all / shape.parts)
    const parts = Math.ceil(all / pages)
    const rows = program.upload(Uint32Array.of(table, tokens, pages, parts))
    const words = packedQueryWidth(shape) / 2
    return [
      await program.wgsl('pack queries', packQueries(shape), [program.count('step'), b.slots, b.queries, b.queries, b.packed], () => [
        Math.ceil(words / 64),
        shape.slots.length,
        1,
      ]),
      await program.wgsl(
        'attention',
        tensorAttention(shape, tiling, 1),
        [rows, b.entries, b.pages, b.packed, this.#cache, b.z, b.state, b.start, b.sizes],
        () => [parts, 1, 1],
      ),
      await program.wgsl('combine parts', combineTensorParts(shape, 1, false), [rows, b.entries, b.z, b.state, b.out, b.start, b.sizes], () => [
        ...combineGroups(shape, false),
        1,
      ]),
    ]
  }

  /** The same bytes read by a kernel that does nothing else. */
  async reads(tokens: number, table: number): Promise<Dispatch[]> {
    const { program } = this.#gpu
    const words = (tokens * this.bytesPerToken) / 16
    const first = program.uniform(Uint32Array.of((table * PAGE_TOKENS * this.bytesPerToken) / 16, 0, 0, 0))
    return [await program.wgsl('read', readOnly(words), [this.#cache, this.#buffers.state, first], () => [132 * 8, 1, 1])]
  }

  /** First pages of at most 16 block tables of `tokens` that do not overlap. Read in turn, they do not stay in the card's cache. */
  tables(tokens: number): number[] {
    const pages = Math.ceil(tokens / PAGE_TOKENS)
    return Array.from({ length: Math.max(1, Math.min(16, Math.floor(this.#pages.length / pages))) }, (_, i) => i * pages)
  }

  /** Largest relative error (Euclidean) of some heads against float64, outputs poisoned before. */
  async error(tokens: number): Promise<number> {
    const { heads, latent, rope } = this.widths
    const { context, program } = this.#gpu
    const table = Math.max(0, this.#pages.length - Math.ceil(tokens / PAGE_TOKENS))
    const dispatches = await this.dispatches(tokens, table)
    const poison = new Float32Array(heads * latent).fill(Number.NaN)
    context.device.queue.writeBuffer(this.#buffers.out, 0, poison)
    context.device.queue.writeBuffer(this.#buffers.z, 0, poison)
    const encoder = context.device.createCommandEncoder()
    program.encode(encoder, dispatches, ONE_ROW)
    context.device.queue.submit([encoder.finish()])
    const out = await readBack(this.#gpu, this.#buffers.out, heads * latent)
    const checked = tokens > 20_000 ? [0, heads - 1] : Array.from({ length: heads }, (_, h) => h)
    return Math.max(...checked.map((h) => relative(out.subarray(h * latent, (h + 1) * latent), this.#reference(h, tokens, table, latent, rope))))
  }

  #reference(head: number, tokens: number, table: number, latent: number, rope: number): Float64Array {
    const half = new Float16()
    const q = (i: number) => half.round(this.#queries[i] as number)
    const queries = Float64Array.from({ length: latent + rope }, (_, i) =>
      q(i < latent ? head * latent + i : this.widths.heads * latent + head * rope + i - latent),
    )
    const at = (token: number) => (this.#pages[table + Math.floor(token / PAGE_TOKENS)] as number) * PAGE_TOKENS + (token % PAGE_TOKENS)
    const scores = Float64Array.from({ length: tokens }, (_, i) => {
      let sum = 0
      const row = at(i)
      for (let d = 0; d < latent; d++) sum += (queries[d] as number) * randomF16(row * latent + d)
      for (let d = 0; d < rope; d++) sum += (queries[latent + d] as number) * randomF16(this.shape.ropeRegion + row * rope + d)
      return sum * this.shape.scale
    })
    const most = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
    const sums = new Float64Array(latent)
    let weight = 0
    for (let i = 0; i < tokens; i++) {
      const e = Math.exp((scores[i] as number) - most)
      weight += e
      const row = at(i)
      for (let d = 0; d < latent; d++) sums[d] = (sums[d] as number) + e * randomF16(row * latent + d)
    }
    return sums.map((s) => s / weight)
  }

  close(): void {
    for (const buffer of [this.#cache, ...Object.values(this.#buffers)]) buffer.destroy()
  }
}

function relative(actual: Float32Array, expected: Float64Array): number {
  let error = 0
  let size = 0
  for (const [i, e] of expected.entries()) {
    error += ((actual[i] as number) - e) ** 2
    size += e ** 2
  }
  const value = Math.sqrt(error / size)
  return Number.isNaN(value) ? Number.POSITIVE_INFINITY : value
}

/** Rounding to float16, as the kernel rounds queries. */
class Float16 {
  readonly #bits = new DataView(new ArrayBuffer(4))

  /** To nearest, ties to even; normal numbers only. */
  round(x: number): number {
    this.#bits.setFloat32(0, x)
    const u = this.#bits.getUint32(0)
    this.#bits.setUint32(0, (u + 0xfff + ((u >>> 13) & 1)) & ~0x1fff)
    return this.#bits.getFloat32(0)
  }
}
