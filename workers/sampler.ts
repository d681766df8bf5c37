// Chooses tokens from gathered logits. Every rank does it over the same bits, so all know the token without another
// collective and the next step can start before the coordinator has seen it.
import type { KernelSpace } from '../kernels/backend.js'
import { uniform } from '../kernels/portable-math.js'
import type { Rows } from '../kernels/rows.js'
import { ROW } from './layout.js'
import type { StepView } from './step-view.js'

/** The token after row t of the step, or -1 if its logits are not finite, from row `at` of logits. scratch: n + 4 scalars in the space's memory. */
export function sampleRow(space: KernelSpace, step: StepView, t: number, logits: Rows, at: number, n: number, scratch: number): number {
  const temperature = step.temperature(t)
  const position = step.int(t, ROW.position) + 1
  if (temperature === 0) return space.argmax(logits, at, n)
  const u = uniform(step.int(t, ROW.seedLow), step.int(t, ROW.seedHigh), 0, position)
  return space.sample(logits, at, n, temperature, u, scratch)
}
