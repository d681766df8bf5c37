// A rank's weights on its device: which packed matrices lie in which buffer (a plan: numbers only), which tile of them a workgroup
// computes, and the upload from the shared memories. Knows no order of operations.
/// <reference types="@webgpu/types" />
import type { SharedMemory } from '../../kernels/backend.js'
import type { Program, ProgramParts } from '../../kernels/gpu/program.js'
import { TILE_WORDS, tileBytes, tileRows } from '../../kernels/gpu/wgsl/packed-matmul.js'
import { stepsOf, TILE_VECTORS, VECTORS_PER_SCALE, weightVectors } from '../../kernels/gpu/wgsl/tensor-matmul-shape.js'
import { bufferOf } from '../../kernels/open-backend.js'
import type { PackedMatrix } from '../../kernels/packing.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import type { MemoryName } from '../protocol.js'

const CHUNK_BYTES = 4 << 20
/** A column of 32 rows of f32: matrices begin at whole columns. */
const COLUMN_BYTES = 128

/** A tile of packed weights: the rows that one workgroup computes. Offsets of x and y are in scalars. */
export interface Tile {
  /** First 16-byte word of the tile in the buffer of weights: of its packed bytes, or of its float16 tiles. */
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

/** The matrices of a plan on the device. */
export interface DeviceMatrices {
  readonly buffer: GPUBuffer
  /** Of float16 tiles: one scale a row. */
  readonly scales: GPUBuffer | undefined
}

/** The shared memories that hold packed weights. */
export interface WeightMemories {
  /** By shard. */
  readonly shards: readonly SharedMemory[]
  readonly rank: SharedMemory
}

/** As the host packs weights, or as float16 tiles for products on tensor cores, which the device makes of that. */
export type DeviceLayout = 'packed' | 'tiles'

/** 16-byte words past the last weight that the kernels may read, and do not use. */
export const WEIGHT_SLACK = 32 * TILE_VECTORS

interface PlacedMatrix {
  /** Byte offset of the packed matrix. */
  readonly at: number
  /** First 16-byte word of its float16 tiles. */
  readonly vector: number
  readonly memory: MemoryName
}

/** The plan of one buffer of weights: which matrices lie in it, and where. Fill it with `place`. */
export class WeightPlan {
  readonly layout: DeviceLayout
  readonly #placed = new Map<PackedMatrix, PlacedMatrix>()
  #bytes = 0
  #vectors = 0

  constructor(layout: DeviceLayout) {
    this.layout = layout
  }

  /** Reserves space for a matrix of a memory, once. */
  place(matrix: PackedMatrix, memory: MemoryName): void {
    if (matrix.bytes === 0 || this.#placed.has(matrix)) return
    this.#placed.set(matrix, { at: this.#bytes, vector: this.#vectors, memory })
    this.#vectors += matrix.batch * matrixVectors(matrix)
    this.#bytes += Math.ceil(matrix.bytes / COLUMN_BYTES) * COLUMN_BYTES
  }

  /** Bytes of the packed matrices. */
  get bytes(): number {
    return this.#bytes
  }

  /** Bytes of the float16 tiles, and of the scales of their rows. */
  get tileBytes(): number {
    return (this.#vectors + WEIGHT_SLACK) * 16
  }

  get scaleBytes(): number {
    return Math.ceil(this.#vectors / VECTORS_PER_SCALE) * 4
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
    const vectors = weightVectors(height, stepsOf(matrix.cols))
    return Array.from({ length: Math.ceil(matrix.rows / height) }, (_, tile) => ({
      word:
        this.layout === 'tiles'
          ? placed.vector + index * matrixVectors(matrix) + tile * vectors
          : (placed.at + index * matrix.batchBytes + tile * bytes) / 16,
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

/** 16-byte words of one matrix's float16 tiles. */
export function matrixVectors({ rows, cols }: PackedMatrix): number {
  return weightVectors(rows, stepsOf(cols))
}

/** Bytes of a plan's buffers on the device; `asFloats`: with its weights as float32. */
export function deviceBytes(plan: WeightPlan, asFloats: boolean): number {
  if (plan.layout === 'tiles') return plan.tileBytes + plan.scaleBytes
  return plan.bytes * (floatTiles(plan, asFloats)?.scale ?? 1)
}

/** Copies the packed matrices of a plan to a new device buffer; `asFloats`: as float32. */
export function uploadWeights(program: Program, plan: WeightPlan, memories: WeightMemories, asFloats: boolean): GPUBuffer {
  const buffer = program.buffer(deviceBytes(plan, asFloats))
  copyWeights(program, plan, memories, buffer, asFloats)
  return buffer
}

/** Copies the packed matrices of a plan to a device buffer; `asFloats`: as float32. */
export function copyWeights(program: Program, plan: WeightPlan, memories: WeightMemories, buffer: GPUBuffer, asFloats: boolean): void {
  const floats = floatTiles(plan, asFloats)
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
}

/** A table of tiles on the device, as packedMatmul reads it. */
export function uploadTiles(program: ProgramParts, tiles: readonly Tile[]): GPUBuffer {
  const words = new Uint32Array(Math.max(1, tiles.length) * TILE_WORDS)
  for (const [i, { word, x, y, k, rows }] of tiles.entries()) words.set([word, x, y, k, rows], i * TILE_WORDS)
  return program.upload(words)
}
