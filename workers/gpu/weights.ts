// A rank's weights on its device: which packed matrices lie in which buffer (a plan: numbers only), which tile of them a workgroup
// computes, and the upload from the shared memories. Knows no order of operations.
/// <reference types="@webgpu/types" />
import type { SharedMemory } from '../../kernels/backend.js'
import type { Program, ProgramParts } from '../../kernels/gpu/program.js'
import { TILE_WORDS, tileBytes, tileRows } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { bufferOf } from '../../kernels/open-backend.js'
import type { PackedMatrix } from '../../kernels/packing.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import type { MemoryName } from '../protocol.js'

const CHUNK_BYTES = 4 << 20
/** A column of 32 rows of f32: matrices begin at whole columns. */
const COLUMN_BYTES = 128

/** A tile of packed weights: the rows that one workgroup computes. Offsets of x and y are in scalars. */
export interface Tile {
  /** First 16-byte word of the tile in the buffer of weights. */
  readonly word: number
  /** First column of the input. */
  readonly x: number
  /** Where the first output goes. */
  readonly y: number
  /** Columns of the matrix. */
  readonly k: number
  /** Rows of the matrix in this tile; the rest is padding. */
  readonly rows: number
}

/** The shared memories that hold packed weights. */
export interface WeightMemories {
  /** By shard. */
  readonly shards: readonly SharedMemory[]
  readonly rank: SharedMemory
}

interface PlacedMatrix {
  /** Byte offset in the buffer. */
  readonly at: number
  readonly memory: MemoryName
}

/** The plan of one buffer of weights: which matrices lie in it, and where. Fill it with `place`. */
export class WeightPlan {
  readonly #placed = new Map<PackedMatrix, PlacedMatrix>()
  #bytes = 0

  /** Reserves space for a matrix of a memory, once. */
  place(matrix: PackedMatrix, memory: MemoryName): void {
    if (matrix.bytes === 0 || this.#placed.has(matrix)) return
    this.#placed.set(matrix, { at: this.#bytes, memory })
    this.#bytes += Math.ceil(matrix.bytes / COLUMN_BYTES) * COLUMN_BYTES
  }

  /** Bytes of the buffer, in the stored formats. */
  get bytes(): number {
    return this.#bytes
  }

  get placed(): ReadonlyMap<PackedMatrix, PlacedMatrix> {
    return this.#placed
  }

  /** Tiles of a batch of matrices over one input that begins at column x; outputs begin at element y, outStride apart. */
  tiles(matrix: PackedMatrix, x: number, y: number, outStride = 0): Tile[] {
    return Array.from({ length: matrix.batch }, (_, b) => this.tilesOf(matrix, b, x, y + b * outStride)).flat()
  }

  /** Tiles of one matrix of a batch. */
  tilesOf(matrix: PackedMatrix, index: number, x: number, y: number): Tile[] {
    const placed = this.#placed.get(matrix)
    if (!placed) return []
    const height = tileRows(matrix.format)
    const bytes = tileBytes(matrix.format, matrix.cols)
    return Array.from({ length: Math.ceil(matrix.rows / height) }, (_, tile) => ({
      word: (placed.at + index * matrix.batchBytes + tile * bytes) / 16,
      x,
      y: y + tile * height,
      k: matrix.cols,
      rows: Math.min(height, matrix.rows - tile * height),
    }))
  }
}

/** How float32 tiles are made of a plan's matrices, which have one format; undefined: they are stored as they are. */
function floatTiles(plan: WeightPlan, asFloats: boolean) {
  const [first] = plan.placed.keys()
  return asFloats && first ? WEIGHT_FORMATS[first.format].floatTiles : undefined
}

/** Bytes of a plan's buffer on the device; `asFloats`: with its weights as float32. */
export function deviceBytes(plan: WeightPlan, asFloats: boolean): number {
  return plan.bytes * (floatTiles(plan, asFloats)?.scale ?? 1)
}

/** Copies the matrices of a plan to a new device buffer; `asFloats`: as float32. */
export function uploadWeights(program: Program, plan: WeightPlan, memories: WeightMemories, asFloats: boolean): GPUBuffer {
  const floats = floatTiles(plan, asFloats)
  const buffer = program.buffer(deviceBytes(plan, asFloats))
  const staging = new Uint8Array(Math.min(CHUNK_BYTES, Math.max(16, plan.bytes)))
  for (const [matrix, { at, memory }] of plan.placed) {
    const source = memory.kind === 'rank' ? memories.rank : memories.shards[memory.index]
    if (!source) throw new RangeError(`no memory of ${memory.kind} ${memory.index}`)
    const from = new Uint8Array(bufferOf(source), matrix.ptr, matrix.bytes)
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

/** A table of tiles on the device, as packedMatmul reads it. */
export function uploadTiles(program: ProgramParts, tiles: readonly Tile[]): GPUBuffer {
  const words = new Uint32Array(Math.max(1, tiles.length) * TILE_WORDS)
  for (const [i, { word, x, y, k, rows }] of tiles.entries()) words.set([word, x, y, k, rows], i * TILE_WORDS)
  return program.upload(words)
}
