// The weights of a rank as its device gets them: uploaded layer by layer from the shared memories, norms included.
/// <reference types="@webgpu/types" />

import { BUFFER_USAGE } from '../../kernels/gpu/buffer-usage.js'
import type { GpuContext } from '../../kernels/gpu/context.js'
import type { Dispatch, Program, Shaped } from '../../kernels/gpu/program.js'
import { stepsOf } from '../../kernels/gpu/wgsl/tensor-matmul-shape.js'
import { REPACK_WORDS, type Repack, repackTable, repackWeights } from '../../kernels/gpu/wgsl/tensor-weights.js'
import { bufferOf } from '../../kernels/open-backend.js'
import { queryWidth } from '../layout/attention-geometry.js'
import type { RankLayout } from '../layout/rank-layout.js'
import type { LayerNorms } from './layer.js'
import { shortage } from './memory.js'
import type { GpuPlan } from './plan.js'
import type { StepWeights } from './step-program.js'
import { copyWeights, type DeviceMatrices, matrixVectors, uploadWeights, type WeightMemories, type WeightPlan } from './weights.js'

/** Workgroups along one dimension, at most. */
const MAX_WORKGROUPS = 65_535

export class DeviceWeights implements StepWeights {
  readonly #context: GpuContext
  readonly #program: Program
  readonly #plan: GpuPlan
  readonly #layout: RankLayout
  readonly #memories: WeightMemories
  /** The rank's memory, where its norms are. */
  readonly #floats: Float32Array
  /** Packed weights on the device, on their way to float16 tiles: one plan's after another. */
  #packed: GPUBuffer | undefined

  constructor(context: GpuContext, program: Program, plan: GpuPlan, layout: RankLayout, memories: WeightMemories) {
    this.#context = context
    this.#program = program
    this.#plan = plan
    this.#layout = layout
    this.#memories = memories
    this.#floats = new Float32Array(bufferOf(memories.rank))
  }

  /** Throws DeviceMemory. */
  async layer(index: number): Promise<{ matrices: DeviceMatrices; norms: LayerNorms }> {
    const { a, shape, streamCount } = this.#plan
    const layer = this.#layout.layers[index] as RankLayout['layers'][number]
    const planned = this.#plan.layers[index] as GpuPlan['layers'][number]
    const streams = new Float32Array(Math.max(1, streamCount) * a.stream.width)
    for (const [k, ptr] of layer.streamNorms.entries()) streams.set(this.#read(ptr, a.stream.normWidth), k * a.stream.width)
    return {
      matrices: await this.#upload(planned.weights, `weights of layer ${index}`),
      norms: {
        input: this.#vector(layer.inputNorm, shape.embed),
        mlp: this.#vector(layer.mlpNorm, shape.embed),
        query: this.#vector(layer.queryNorm, Math.max(1, a.queryRank)),
        streams: { buffer: this.#program.upload(streams), dims: [a.stream.width, Math.max(1, streamCount)] },
        bias: a.biased ? this.#bias(layer) : undefined,
        heads: a.headNormed ? this.#headNorms(layer) : undefined,
      },
    }
  }

  /** Throws DeviceMemory. */
  async head(): Promise<{ matrices: DeviceMatrices; norm: Shaped }> {
    const matrices = await this.#upload(this.#plan.head.weights, 'weights of the output projection')
    return { matrices, norm: this.#vector(this.#layout.finalNorm, this.#plan.shape.embed) }
  }

  #vector(ptr: number, n: number): Shaped {
    return this.#upload1(this.#read(ptr, n))
  }

  #upload1(values: Float32Array): Shaped {
    return { buffer: this.#program.upload(values), dims: [values.length] }
  }

  /** A copy of n values of the rank's memory. */
  #read(ptr: number, n: number): Float32Array {
    return this.#floats.slice(ptr / 4, ptr / 4 + n)
  }

  /** What is added to each column of the projections. */
  #bias({ queryBias, streamBiases }: RankLayout['layers'][number]): Shaped {
    const { a, columns } = this.#plan
    const all = new Float32Array(columns.width)
    for (const [k, ptr] of streamBiases.entries()) all.set(this.#read(ptr, a.stream.width), columns.streams + k * a.stream.width)
    all.set(this.#read(queryBias, a.heads * queryWidth(a)), columns.queryB)
    return this.#upload1(all)
  }

  /** Weights of the norms of keys and queries, by groups of a head's width: all columns of the projections are such groups. */
  #headNorms({ headNorm, streamNorms }: RankLayout['layers'][number]): { weight: Shaped; hasWeight: Shaped } {
    const { a, columns } = this.#plan
    const n = queryWidth(a)
    const groups = columns.width / n
    const weight = new Float32Array(columns.width)
    const hasWeight = new Float32Array(groups)
    const put = (column: number, ptr: number) => {
      weight.set(this.#read(ptr, n), column)
      hasWeight[column / n] = 1
    }
    for (const [k, ptr] of streamNorms.entries()) put(columns.streams + k * a.stream.width, ptr)
    for (let head = 0; head < a.heads; head++) put(columns.queryB + head * n, headNorm)
    return { weight: { buffer: this.#program.upload(weight), dims: [n, groups] }, hasWeight: this.#upload1(hasWeight) }
  }

  async #upload(weights: WeightPlan, what: string): Promise<DeviceMatrices> {
    const before = this.#program.bytes
    const lacks = () => shortage(this.#plan, what, before)
    const { floats, products } = this.#plan.kernels
    if (products === 'packed') {
      const buffer = await this.#context.withMemory(() => uploadWeights(this.#program, weights, this.#memories, floats), lacks)
      return { buffer, scales: undefined }
    }
    const made = await this.#context.withMemory(() => {
      this.#packed ??= this.#program.device.createBuffer({ size: this.#largest, usage: BUFFER_USAGE.storage | BUFFER_USAGE.copyDst })
      return { buffer: this.#program.buffer(weights.tileBytes), scales: this.#program.buffer(weights.scaleBytes) }
    }, lacks)
    copyWeights(this.#program, weights, this.#memories, this.#packed as GPUBuffer, false)
    await this.#repack(weights, made)
    return made
  }

  /** Bytes of the largest plan, packed. */
  get #largest(): number {
    return Math.max(16, ...[this.#plan.head, ...this.#plan.layers].map(({ weights }) => Math.ceil(weights.bytes / 16) * 16))
  }

  /** From the packed weights that were copied last to float16 tiles. */
  async #repack(weights: WeightPlan, { buffer, scales }: { readonly buffer: GPUBuffer; readonly scales: GPUBuffer }): Promise<void> {
    const program = this.#program
    const bySteps = new Map<number, Repack[]>()
    for (const [matrix, { at, vector }] of weights.placed) {
      const { rows, cols } = matrix
      const steps = stepsOf(cols)
      const matrices = bySteps.get(steps) ?? []
      bySteps.set(steps, matrices)
      for (let b = 0; b < matrix.batch; b++) {
        matrices.push({ from: (at + b * matrix.batchBytes) / 4, to: vector + b * matrixVectors(matrix), rows, cols })
      }
    }
    const commands: Dispatch[] = []
    const tables: GPUBuffer[] = []
    for (const [steps, matrices] of bySteps) {
      const table = repackTable(matrices)
      const entries = table.length / REPACK_WORDS
      const uploaded = program.upload(table)
      tables.push(uploaded)
      for (let first = 0; first < entries; first += MAX_WORKGROUPS) {
        const buffers = [this.#packed, uploaded, buffer, scales, program.uniform(Uint32Array.of(first, 0, 0, 0))]
        commands.push(await program.wgsl('repack weights', repackWeights(steps), buffers, () => [Math.min(MAX_WORKGROUPS, entries - first), 1, 1]))
      }
    }
    const encoder = program.device.createCommandEncoder()
    const pass = encoder.beginComputePass()
    for (const { pipeline, bindGroup, groups } of commands) {
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, bindGroup)
      pass.dispatchWorkgroups(...groups({ rows: 1, selected: 1, parts: 1, singles: 1, prompts: 0 }))
    }
    pass.end()
    program.device.queue.submit([encoder.finish()])
    for (const table of tables) table.destroy()
  }

  /** Frees what only the upload needed. */
  close(): void {
    this.#packed?.destroy()
    this.#packed = undefined
  }
}
