// Reads the control words of ranks that fail: their progress, which one is late, and why one failed. Mutates them only in resetControl.
import { setTimeout } from 'node:timers/promises'
import { CONTROL, RANK, rankSlot } from '../../../workers/mailbox/control.js'
import { STAGES } from '../../../workers/protocol.js'
import { RankError } from '../../errors.js'
import type { RankGroup } from './rank-group.js'

/** How long a rank may take to say why it failed. */
const EXPLAIN_MS = 250

/** Stages that the ranks have entered, all together: it grows as long as one makes progress. */
export function progressOf(control: Int32Array, ranks: number): number {
  let sum = 0
  for (let rank = 0; rank < ranks; rank++) sum += Atomics.load(control, rankSlot(rank, RANK.progress))
  return sum
}

/** The failure that the rank that set the abort word reports, if it answers soon. */
export async function explainFailure(control: Int32Array, group: RankGroup | undefined): Promise<RankError> {
  const by = Atomics.load(control, CONTROL.abort) - 1
  const failure = await Promise.race([group?.takeFailure(by).catch(() => undefined), setTimeout(EXPLAIN_MS, undefined)])
  return new RankError(failure?.code ?? 'RANK_FAILED', {
    what: failure?.code === 'RANK_LATE' ? failure.message : `rank ${by} failed: ${failure?.message ?? 'no reason was given'}`,
    remedy: 'The engine restarts its ranks.',
  })
}

/** Which ranks did not end the step, and where they were last seen. */
export function lateRanks(control: Int32Array, ranks: number, epoch: number, deadlineMs: number): RankError {
  const late = Array.from({ length: ranks }, (_, rank) => rank).filter((rank) => ((Atomics.load(control, rankSlot(rank, RANK.done)) - epoch) | 0) < 0)
  const named = late
    .map((rank) => `rank ${rank} (last seen at: ${STAGES[Atomics.load(control, rankSlot(rank, RANK.stage))] ?? 'unknown'})`)
    .join(', ')
  return new RankError('RANK_LATE', {
    what: `${named} did not end the step within ${deadlineMs} ms`,
    remedy: 'The engine restarts its ranks; raise stepDeadlineMs if the machine is just slow.',
  })
}

/** Resets all words but the epochs: no rank is in a barrier, none has failed, all have ended every step. */
export function resetControl(control: Int32Array, ranks: number, epoch: number): void {
  control.fill(0)
  control[CONTROL.stepEpoch] = epoch
  control[CONTROL.doneEpoch] = epoch
  for (let rank = 0; rank < ranks; rank++) control[rankSlot(rank, RANK.done)] = epoch
}
