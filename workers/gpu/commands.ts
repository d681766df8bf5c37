// Everything that a rank's steps dispatch, made once: uploads its weights, compiles its kernels. Owns no step.
/// <reference types="@webgpu/types" />
import type { GpuContext } from '../../kernels/gpu/context.js'
import type { Command, Program, Shaped } from '../../kernels/gpu/program.js'
import type { RankLayout } from '../layout/rank-layout.js'
import type { GpuBuffers } from './buffers.js'
import { GpuJsKernels, type StepPlaces } from './gpu-js-kernels.js'
import { LayerBuilder, type LayerSegments } from './layer.js'
import { shortage } from './memory.js'
import type { GpuPlan } from './plan.js'
import type { WeightBuffer } from './weights.js'
import { WgslKernels } from './wgsl-kernels.js'

export interface RankCommands {
  readonly layers: readonly LayerSegments[]
  /** From the wanted rows of the residual to their logits. */
  readonly head: readonly Command[]
}

/** memory: the rank's, where its norms are. Throws DeviceMemory. */
export async function buildCommands(
  context: GpuContext,
  program: Program,
  plan: GpuPlan,
  buffers: GpuBuffers,
  places: StepPlaces,
  mine: RankLayout,
  memory: Float32Array,
  contextTokens: number,
): Promise<RankCommands> {
  const { a, shape } = plan
  const kernels = plan.portable ? new GpuJsKernels(program, plan, buffers, places, contextTokens) : new WgslKernels(program, plan, buffers)
  const builder = new LayerBuilder(program, plan, buffers, kernels)
  const vector = (ptr: number, n: number): Shaped => ({ buffer: program.upload(memory.slice(ptr / 4, ptr / 4 + n)), dims: [n] })
  const upload = (weights: WeightBuffer, what: string) => {
    const before = program.bytes
    return context.withMemory(
      () => weights.upload(program, plan.portable),
      () => shortage(plan, what, before),
    )
  }
  const layers: LayerSegments[] = []
  for (const [i, layer] of mine.layers.entries()) {
    const planned = plan.layers[i] as GpuPlan['layers'][number]
    const streams = new Float32Array(Math.max(1, plan.streamCount) * a.stream.width)
    for (const [k, ptr] of layer.streamNorms.entries()) streams.set(memory.subarray(ptr / 4, ptr / 4 + a.stream.width), k * a.stream.width)
    layers.push(
      await builder.build(i, await upload(planned.buffer, `weights of layer ${i}`), {
        input: vector(layer.inputNorm, shape.embed),
        mlp: vector(layer.mlpNorm, shape.embed),
        query: vector(layer.queryNorm, Math.max(1, a.queryRank)),
        streams: { buffer: program.upload(streams), dims: [a.stream.width, Math.max(1, plan.streamCount)] },
      }),
    )
  }
  const head = await kernels.product({
    name: 'head',
    weights: await upload(plan.head.buffer, 'weights of the output projection'),
    tiles: plan.head.tiles,
    x: buffers.selected,
    y: buffers.logits,
    rowSet: 'selected',
    norm: { weight: vector(mine.finalNorm, shape.embed), epsilon: shape.normEps },
  })
  return { layers, head }
}
