// What a step dispatches on a rank's device, made once: the commands of every layer and of the output projection, and how a step is
// cut into submits. Owns the choice of kernels; runs nothing.
/// <reference types="@webgpu/types" />

import { type Command, commandsOfStep, type ProgramParts, type Shaped } from '../../kernels/gpu/program.js'
import { dispatchId } from '../profile/profile-recorder.js'
import type { DispatchFacts } from '../protocol.js'
import type { GpuBuffers } from './buffers.js'
import { embedRows } from './embed-rows.js'
import { GpuJsKernels } from './gpu-js-kernels.js'
import type { StepTables } from './kernel-set.js'
import { LayerBuilder, type LayerNorms, type LayerSegments } from './layer.js'
import type { GpuPlan } from './plan.js'
import type { DeviceMatrices } from './weights.js'
import { WgslKernels } from './wgsl-kernels.js'

/**
 * Where a step at one rank is cut into submits, in shares of its layers. Dawn takes about half as long to make a part's commands as a
 * device takes to run them for one row, so parts may double.
 */
const SUBMIT_SHARES = [1 / 24, 1 / 8, 7 / 24, 5 / 8, 1]

/** The weights on the device, layer after layer: a layer's are asked for when its commands are built. */
export interface StepWeights {
  layer(index: number): Promise<{ readonly matrices: DeviceMatrices; readonly norms: LayerNorms }>
  /** The output projection, and the norm before it. */
  head(): Promise<{ readonly matrices: DeviceMatrices; readonly norm: Shaped }>
}

export class StepProgram {
  /** From what the host uploads to the residual. */
  readonly start: readonly Command[]
  readonly layers: readonly LayerSegments[]
  /** From the wanted rows of the residual to their logits. */
  readonly head: readonly Command[]
  /** From the logits to the most likely tokens. Empty: the host looks for them. */
  readonly argmax: readonly Command[]

  private constructor(start: readonly Command[], layers: readonly LayerSegments[], head: readonly Command[], argmax: readonly Command[]) {
    this.start = start
    this.layers = layers
    this.head = head
    this.argmax = argmax
    // A profile has an event for every label: fail while loading, not in the first profiled step.
    for (const { label } of allCommands([...start, ...layers.flatMap(commandsOf), ...head, ...argmax])) dispatchId(label)
  }

  /** Compiles the kernels. `layers`: how many of the model's; contextTokens: the longest context; widens: embeddings come
   * as bf16. Throws what `weights` throws. */
  static async build(
    program: ProgramParts,
    plan: GpuPlan,
    buffers: GpuBuffers,
    tables: StepTables,
    weights: StepWeights,
    contextTokens: number,
    widens: boolean,
    layers = plan.layers.length,
  ): Promise<StepProgram> {
    const kernels =
      plan.kernels.name === 'gpu.js' ? new GpuJsKernels(program, plan, buffers, tables, contextTokens) : new WgslKernels(program, plan, buffers)
    const builder = new LayerBuilder(program, plan, buffers, kernels)
    const start = widens ? [await embedRows(program, plan, buffers)] : []
    const built: LayerSegments[] = []
    for (let i = 0; i < layers; i++) {
      const { matrices, norms } = await weights.layer(i)
      built.push(await builder.build(i, matrices, norms))
    }
    const { matrices, norm: weight } = await weights.head()
    const { tiles } = plan.head
    const norm = { weight, epsilon: plan.shape.normEps }
    const product = { label: 'head', weights: matrices, tiles, x: buffers.selected, y: buffers.logits, rowSet: 'selected', norm } as const
    return new StepProgram(start, built, await kernels.product(product), plan.ranks === 1 ? await kernels.argmax() : [])
  }

  /** The commands of all layers, by submits. `timed`: one submit, since timestamps of several would not fit together. */
  submits(timed: boolean): readonly (readonly Command[])[] {
    const { layers } = this
    const cuts = timed ? [layers.length] : [...new Set(SUBMIT_SHARES.map((share) => Math.ceil(share * layers.length)))]
    return cuts.map((to, i) => [...(i === 0 ? this.start : []), ...layers.slice(cuts[i - 1] ?? 0, to).flatMap(commandsOf)])
  }

  /** What a step of one row dispatches, in order. */
  get dispatches(): DispatchFacts[] {
    return factsOf([...this.start, ...this.layers.flatMap(commandsOf), ...this.head, ...this.argmax])
  }
}

function allCommands(commands: readonly Command[]): Command[] {
  return commands.flatMap((command) => (command.origin === 'rounds' ? command.rounds.flat() : [command]))
}

export function commandsOf({ attention, output, mlp, end }: LayerSegments): Command[] {
  return [...attention, ...output, ...mlp, ...end]
}

/** Commands that a step of one row runs: rows after the first may have dispatches of their own. */
export function factsOf(commands: readonly Command[]): DispatchFacts[] {
  const oneRow = { rows: 1, selected: 1, parts: 1, singles: 1, prompts: 0 }
  return commandsOfStep(commands, oneRow)
    .filter((command) => command.origin === 'copy' || command.groups(oneRow).every((n) => n > 0))
    .map(({ label, origin }) => ({ name: label, origin }))
}
