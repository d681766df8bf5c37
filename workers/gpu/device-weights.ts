// The weights of a rank as its device gets them: uploaded layer by layer from the shared memories, norms included.
/// <reference types="@webgpu/types" />
import type { GpuContext } from '../../kernels/gpu/context.js'
import type { Program, Shaped } from '../../kernels/gpu/program.js'
import { bufferOf } from '../../kernels/open-backend.js'
import type { RankLayout } from '../layout/rank-layout.js'
import type { LayerNorms } from './layer.js'
import { shortage } from './memory.js'
import type { GpuPlan } from './plan.js'
import type { StepWeights } from './step-program.js'
import { uploadWeights, type WeightMemories, type WeightPlan } from './weights.js'

export class DeviceWeights implements StepWeights {
  readonly #context: GpuContext
  readonly #program: Program
  readonly #plan: GpuPlan
  readonly #layout: RankLayout
  readonly #memories: WeightMemories
  /** The rank's memory, where its norms are. */
  readonly #floats: Float32Array

  constructor(context: GpuContext, program: Program, plan: GpuPlan, layout: RankLayout, memories: WeightMemories) {
    this.#context = context
    this.#program = program
    this.#plan = plan
    this.#layout = layout
    this.#memories = memories
    this.#floats = new Float32Array(bufferOf(memories.rank))
  }

  /** Throws DeviceMemory. */
  async layer(index: number): Promise<{ matrices: GPUBuffer; norms: LayerNorms }> {
    const { a, shape, streamCount } = this.#plan
    const layer = this.#layout.layers[index] as RankLayout['layers'][number]
    const planned = this.#plan.layers[index] as GpuPlan['layers'][number]
    const streams = new Float32Array(Math.max(1, streamCount) * a.stream.width)
    for (const [k, ptr] of layer.streamNorms.entries()) streams.set(this.#floats.subarray(ptr / 4, ptr / 4 + a.stream.width), k * a.stream.width)
    return {
      matrices: await this.#upload(planned.weights, `weights of layer ${index}`),
      norms: {
        input: this.#vector(layer.inputNorm, shape.embed),
        mlp: this.#vector(layer.mlpNorm, shape.embed),
        query: this.#vector(layer.queryNorm, Math.max(1, a.queryRank)),
        streams: { buffer: this.#program.upload(streams), dims: [a.stream.width, Math.max(1, streamCount)] },
      },
    }
  }

  /** Throws DeviceMemory. */
  async head(): Promise<{ matrices: GPUBuffer; norm: Shaped }> {
    const matrices = await this.#upload(this.#plan.head.weights, 'weights of the output projection')
    return { matrices, norm: this.#vector(this.#layout.finalNorm, this.#plan.shape.embed) }
  }

  #vector(ptr: number, n: number): Shaped {
    return { buffer: this.#program.upload(this.#floats.slice(ptr / 4, ptr / 4 + n)), dims: [n] }
  }

  #upload(weights: WeightPlan, what: string): Promise<GPUBuffer> {
    const before = this.#program.bytes
    return this.#context.withMemory(
      () => uploadWeights(this.#program, weights, this.#memories, this.#plan.kernels.floats),
      () => shortage(this.#plan, what, before),
    )
  }
}
