// What a rank would dispatch for a token on an adapter, without a device: for people.
import type { AdapterFacts } from '../../kernels/gpu/adapter.js'
import type { ProgramParts } from '../../kernels/gpu/program.js'
import { queryWidth } from '../layout/attention-geometry.js'
import { isLocal } from '../layout/attention-plan.js'
import type { ModelLayout } from '../layout/model-layout.js'
import type { DispatchList, ModelShape, RunPlan } from '../protocol.js'
import { GpuBuffers } from './buffers.js'
import { DryProgram } from './dry-program.js'
import { Embeddings } from './embeddings.js'
import type { LayerSegments } from './layer.js'
import { GpuPlan } from './plan.js'
import { commandsOf, factsOf, StepProgram } from './step-program.js'

/** `program` receives every kernel. Throws where the adapter cannot run the plan. */
export async function listDispatches(
  shape: ModelShape,
  run: RunPlan,
  layout: ModelLayout,
  rank: number,
  adapter: AdapterFacts,
  program: ProgramParts = new DryProgram(),
): Promise<DispatchList> {
  const plan = new GpuPlan(shape, run, layout, rank, adapter)
  const buffers = new GpuBuffers(program, plan, 1)
  const vector = (n: number) => program.tensor(n)
  const { a, columns } = plan
  const n = queryWidth(a)
  const heads = { weight: program.tensor(n, columns.width / n), hasWeight: vector(columns.width / n) }
  const norms = {
    input: vector(shape.embed),
    mlp: vector(shape.embed),
    query: vector(Math.max(1, a.queryRank)),
    streams: vector(1),
    bias: a.biased ? vector(columns.width) : undefined,
    heads: a.headNormed ? heads : undefined,
  }
  const matrices = { buffer: program.buffer(0), scales: program.buffer(0) }
  const weights = {
    layer: async () => ({ matrices, norms }),
    head: async () => ({ matrices, norm: vector(shape.embed) }),
  }
  const tables = { pageTable: vector(1), rowTable: vector(1), cacheRow: () => 0 }
  const widens = plan.kernels.products === 'tiles' && Embeddings.canCopy(shape, layout)
  const { start, layers, head, argmax } = await StepProgram.build(program, plan, buffers, tables, weights, run.contextTokens, widens, 1)
  const exchanges = run.ranks === 1 ? 0 : isLocal(shape.attention) ? 2 : 3
  return {
    layer: factsOf(commandsOf(layers[0] as LayerSegments)),
    end: factsOf([...start, ...head, ...argmax]),
    readbacksPerToken: exchanges * shape.layers + 1,
  }
}
