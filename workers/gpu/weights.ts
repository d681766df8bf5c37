// A rank's weights on its device: the packed tiles of its shards as they lie in the shared memories, one buffer a layer, and the
// tables that say which tile a workgroup takes. Owns the upload; knows no order of operations.
/// <reference types="@webgpu/types" />
import type { SharedMemory } from '../../kernels/backend.js'
import type { Program, ProgramParts } from '../../kernels/gpu/program.js'
import { TILE_WORDS, tileBytes, tileRows } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { bufferOf } from '../../kernels/open-backend.js'
import type { PackedMatrix } from '../../kernels/packing.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'

const CHUNK = 4 << 20
/** A column of 32 rows of f32: matrices begin at whole columns. */
const COLUMN_BYTES = 128

/** Matrices of one buffer. Fill it with `place`, then `upload`. */
export class WeightBuffer {
  readonly #placed = new Map<PackedMatrix, { readonly at: number; readonly memory: SharedMemory }>()
  #bytes = 0

  /** Makes room for a matrix of a memory. */
  place(matrix: PackedMatrix, memory: SharedMemory): void {
    if (matrix.bytes === 0 || this.#placed.has(matrix)) return
    this.#placed.set(matrix, { at: this.#bytes, memory })
    this.#bytes += Math.ceil(matrix.bytes / COLUMN_BYTES) * COLUMN_BYTES
  }

  /** Bytes on the device. */
  get bytes(): number {
    return this.#bytes
  }

  /** Copies all matrices to a new device buffer; `asFloats`: bf16 becomes f32 on the way. */
  upload(program: Program, asFloats: boolean): GPUBuffer {
    const [first] = this.#placed.keys()
    // All matrices of a buffer have one format.
    const floats = asFloats && first ? WEIGHT_FORMATS[first.format].floatTiles : undefined
    const buffer = program.buffer(this.#bytes * (floats?.scale ?? 1))
    const staging = new Uint8Array(Math.min(CHUNK, Math.max(16, this.#bytes)))
    for (const [matrix, { at, memory }] of this.#placed) {
      const from = new Uint8Array(bufferOf(memory), matrix.ptr, matrix.bytes)
      for (let done = 0; done < matrix.bytes; done += staging.length) {
        const part = from.subarray(done, done + staging.length)
        staging.set(part)
        const words = new Uint32Array(staging.buffer, 0, part.length / 4)
        if (floats) program.device.queue.writeBuffer(buffer, floats.scale * (at + done), floats.widen(words))
        else program.device.queue.writeBuffer(buffer, at + done, staging, 0, Math.ceil(part.length / 4) * 4)
      }
    }
    program.device.queue.submit([])
    return buffer
  }

  /** Tiles of a batch over one input that begins at column x; outputs begin at element y and lie outStride apart. */
  tiles(matrix: PackedMatrix, x: number, y: number, outStride = 0): number[][] {
    return Array.from({ length: matrix.batch }, (_, b) => this.tilesOf(matrix, b, x, y + b * outStride)).flat()
  }

  /** Tiles of one matrix of a batch. */
  tilesOf(matrix: PackedMatrix, index: number, x: number, y: number): number[][] {
    const placed = this.#placed.get(matrix)
    if (!placed) return []
    const height = tileRows(matrix.format)
    const bytes = tileBytes(matrix.format, matrix.cols)
    return Array.from({ length: Math.ceil(matrix.rows / height) }, (_, tile) => {
      const word = (placed.at + index * matrix.batchBytes + tile * bytes) / 16
      return [word, x, y + tile * height, matrix.cols, Math.min(height, matrix.rows - tile * height)]
    })
  }
}

/** A table of tiles on the device. */
export function uploadTiles(program: ProgramParts, tiles: readonly (readonly number[])[]): GPUBuffer {
  const words = new Uint32Array(Math.max(1, tiles.length) * TILE_WORDS)
  for (const [i, tile] of tiles.entries()) words.set(tile, i * TILE_WORDS)
  return program.upload(words)
}
