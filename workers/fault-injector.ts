// Faults that tests arm in a rank (tetrad/testing): what happens when the rank comes to the stage of an armed fault. In production no
// fault is ever armed, and a rank makes its injector only at the first one.
import { BUFFER_USAGE } from '../kernels/gpu/buffer-usage.js'
import type { GpuContext } from '../kernels/gpu/context.js'
import { RANK, rankSlot } from './mailbox/control.js'
import { FAULT_KINDS, type FaultKind, STAGES, type Stage } from './protocol.js'

const SLOW_MS = 250

/** The value of a rank's fault slot. */
export function encodeFault(kind: FaultKind, stage: Stage): number {
  return 1 + FAULT_KINDS.indexOf(kind) + 16 * STAGES.indexOf(stage)
}

export class FaultInjector {
  readonly #control: Int32Array
  readonly #rank: number
  readonly #device: GpuContext | undefined

  constructor(control: Int32Array, rank: number, device: GpuContext | undefined) {
    this.#control = control
    this.#rank = rank
    this.#device = device
  }

  /** Acts if `fault`, the value of the rank's slot, is armed for the stage (an index of STAGES); disarms it first. */
  act(fault: number, stage: number): void {
    if (stage !== fault >> 4) return
    Atomics.store(this.#control, rankSlot(this.#rank, RANK.fault), 0)
    const kind = FAULT_KINDS[(fault & 15) - 1]
    if (kind === 'throw') throw new Error('injected fault')
    if (kind === 'exit') process.exit(1)
    if (kind === 'device-lost') this.#device?.device.destroy()
    // The standard forbids buffers that are both MAP_READ and STORAGE.
    if (kind === 'invalid-command') this.#device?.device.createBuffer({ size: 16, usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.storage })
    if (kind === 'slow') park(SLOW_MS)
    if (kind === 'hang') park(Number.POSITIVE_INFINITY)
    if (kind === 'out-of-memory') for (const kept: unknown[] = []; ; ) kept.push(new Array(1 << 20).fill(kept.length))
  }
}

/** Blocks the thread. */
function park(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}
