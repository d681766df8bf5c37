// What a rank would dispatch for a token on an adapter: for people, and without a device.
/// <reference types="@webgpu/types" />
import type { SharedMemory } from '../../kernels/backend.js'
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import type { Command, ProgramParts } from '../../kernels/gpu/program.js'
import { isLocal } from '../layout/attention-plan.js'
import type { ModelLayout } from '../layout/model-layout.js'
import type { DispatchFacts, DispatchList, ModelShape, RunPlan } from '../protocol.js'
import { GpuBuffers } from './buffers.js'
import { DryProgram } from './dry-program.js'
import { GpuJsKernels } from './gpu-js-kernels.js'
import { LayerBuilder } from './layer.js'
import { GpuPlan } from './plan.js'
import { WgslKernels } from './wgsl-kernels.js'

/** For one row: rows beyond the first may have groups of dispatches of their own. */
export function factsOf(commands: readonly Command[]): DispatchFacts[] {
  return commands
    .filter((command) => command.origin === 'copy' || command.groups(1).every((n) => n > 0))
    .map(({ name, origin }) => ({ name, origin }))
}

/** Throws where the adapter can't run the plan. */
export async function listDispatches(
  shape: ModelShape,
  plan: RunPlan,
  layout: ModelLayout,
  rank: number,
  adapter: AdapterFacts,
  program: ProgramParts = new DryProgram(),
): Promise<DispatchList> {
  const memory = {} as SharedMemory
  const planned = new GpuPlan(shape, plan, layout, rank, { shards: [memory, memory, memory, memory], rank: memory }, adapter)
  const buffers = new GpuBuffers(program, planned, 1)
  const nothing = program.tensor(1)
  const inputs = { pageTable: nothing, rowTable: nothing, cacheRow: () => 0 }
  const kernels = planned.portable
    ? new GpuJsKernels(program, planned, buffers, inputs, plan.contextTokens)
    : new WgslKernels(program, planned, buffers)
  const norm = (n: number) => program.tensor(n)
  const norms = { input: norm(shape.embed), mlp: norm(shape.embed), query: norm(Math.max(1, planned.a.queryRank)), streams: nothing }
  const weights = program.buffer(0)
  const segments = await new LayerBuilder(program, planned, buffers, kernels).build(0, weights, norms)
  const head = {
    name: 'head',
    weights,
    tiles: planned.head.tiles,
    x: buffers.selected,
    y: buffers.logits,
    rowSet: 'selected',
    norm: { weight: norm(shape.embed), epsilon: shape.normEps },
  } as const
  const exchanges = plan.ranks === 1 ? 0 : isLocal(shape.attention) ? 2 : 3
  return {
    layer: factsOf([...segments.attention, ...segments.output, ...segments.mlp, ...segments.end]),
    end: factsOf(await kernels.product(head)),
    readbacksPerToken: exchanges * shape.layers + 1,
  }
}
