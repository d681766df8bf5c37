// Named slots of the control buffer: epochs, barriers and failures, which the coordinator and the ranks read of each other. Int32
// slots; those that different threads write lie on different cache lines (16 slots).
import { SHARDS } from '../protocol.js'

export const CONTROL = {
  /** Epoch of the newest published step. The coordinator writes it, ranks wait on it. */
  stepEpoch: 0,
  /** Epoch of the newest step that all ranks ended. The last rank writes it. */
  doneEpoch: 16,
  /** Incremented after doneEpoch or abort has changed; the coordinator waits on it. */
  coordinatorWake: 17,
  /** 0, or 1 + the rank whose failure ended the step. Set once by compare-exchange; the coordinator clears it. */
  abort: 32,
  /** Ranks inside the current barrier. */
  arrived: 48,
  /** Incremented by the last arrival at a barrier; ranks wait on it. */
  barrierPhase: 64,
  /** Ranks that have taken their attach task. */
  attached: 80,
  /** First slot of rank 0: see rankSlot. */
  ranks: 96,
} as const

const RANK_SLOTS = 16
/** Slots of one rank. */
export const RANK = {
  /** Barriers entered since attaching: a rank with a smaller count than another is the late one. */
  barriers: 0,
  /** Index into STAGES. */
  stage: 1,
  /** Epoch of the newest step that this rank ended, successfully or not. */
  done: 2,
  /** 0, or an armed fault: see fault-injector.ts. In a slot, because a busy rank does not serve its port. */
  fault: 3,
  /** Stages that this rank has entered: it grows as long as the rank makes progress. */
  progress: 4,
  /** Operations that the rank's GPU device has not answered. Dawn aborts the process if the thread ends before they are 0. */
  pending: 5,
} as const

export const CONTROL_BYTES = (CONTROL.ranks + SHARDS * RANK_SLOTS) * 4

export function rankSlot(rank: number, slot: number): number {
  return CONTROL.ranks + rank * RANK_SLOTS + slot
}
