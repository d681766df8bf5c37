// Barriers between ranks over the control buffer, with a deadline that names the late rank, and one abort word.
// A collective is: write your part to the exchange memory, barrier, read the others'. Its slots are written again only
// after another barrier has passed, so one barrier each is enough. Knows nothing of models.
import { CONTROL, RANK, rankSlot } from '../mailbox/control.js'
import { eventId, type ProfileRecorder } from '../profile/profile-recorder.js'
import { STAGES, type Stage } from '../protocol.js'

/** Another rank failed: leave the step without an error, the coordinator knows. */
export class StepAborted extends Error {
  override readonly name = 'StepAborted'
}

/** A rank did not reach a collective in time. */
export class RankLate extends Error {
  override readonly name = 'RankLate'
}

/** A wait that spinning could have bridged; a parked thread wakes in about 20 us. */
const SHORT_WAIT_MS = 0.25
const MIN_SPINS = 100

const WAIT_IDS = STAGES.map((stage) => eventId(`wait: ${stage}`))

/**
 * Whether the phase becomes another one within so many looks. A function of its own: V8 compiles a long loop while it runs, and in a larger
 * function that code was thrown away at the loop's end, at every barrier of the first 100 tokens.
 */
function changes(control: Int32Array, phase: number, spins: number): boolean {
  for (let i = 0; i < spins; i++) if (Atomics.load(control, CONTROL.barrierPhase) !== phase) return true
  return Atomics.load(control, CONTROL.barrierPhase) !== phase
}

/** One of the ranks over a control buffer. */
export interface RankPlace {
  readonly control: Int32Array
  readonly rank: number
  readonly ranks: number
}

export interface CollectiveOptions {
  /** How often to poll before parking; 0 unless every rank has a core. */
  readonly spins: number
  readonly deadlineMs: number
  /** Called at a stage while the rank's fault slot is not 0. */
  readonly onFault?: (fault: number, stage: number) => void
  readonly recorder?: ProfileRecorder | undefined
}

export class Collectives {
  readonly #control: Int32Array
  readonly #rank: number
  readonly #ranks: number
  readonly #maxSpins: number
  #spins: number
  readonly #deadlineMs: number
  // State of the current wait: fields, so that a barrier allocates nothing.
  #phase = 0
  #entered = 0
  #start = 0
  #recordedAt = 0
  /** Milliseconds spent waiting at each stage since attaching. */
  readonly waitMs = new Float64Array(STAGES.length)
  #waited = 0
  readonly #recorder: ProfileRecorder | undefined
  readonly #onFault: (fault: number, stage: number) => void

  constructor({ control, rank, ranks }: RankPlace, { spins, deadlineMs, onFault = () => {}, recorder }: CollectiveOptions) {
    this.#recorder = recorder
    this.#onFault = onFault
    this.#control = control
    this.#rank = rank
    this.#ranks = ranks
    this.#maxSpins = spins
    this.#spins = spins
    this.#deadlineMs = deadlineMs
  }

  /** The sum of waitMs. */
  get waitedMs(): number {
    return this.#waited
  }

  /** Reports the stage that this rank has reached, so that a missed deadline can name it. */
  enter(stage: Stage): void {
    const at = STAGES.indexOf(stage)
    Atomics.store(this.#control, rankSlot(this.#rank, RANK.stage), at)
    Atomics.add(this.#control, rankSlot(this.#rank, RANK.progress), 1)
    const fault = Atomics.load(this.#control, rankSlot(this.#rank, RANK.fault))
    if (fault !== 0) this.#onFault(fault, at)
  }

  /** Returns when every rank has called it. Throws StepAborted or RankLate. At one rank it only reports the stage. */
  barrier(stage: Stage): void {
    if (this.#arrive(stage)) return
    if (!changes(this.#control, this.#phase, this.#spins)) this.#park(stage)
    this.#adapt(this.#leave(stage))
  }

  /** The same for a rank that must serve its event loop meanwhile: a GPU's results come through it. */
  async barrierAsync(stage: Stage): Promise<void> {
    if (this.#arrive(stage)) return
    while (Atomics.load(this.#control, CONTROL.barrierPhase) === this.#phase) {
      const wait = Atomics.waitAsync(this.#control, CONTROL.barrierPhase, this.#phase, this.#timeLeft(stage))
      if (wait.async) await wait.value
    }
    this.#leave(stage)
  }

  /** True: this was the last rank to arrive. Otherwise sets the fields of the wait. */
  #arrive(stage: Stage): boolean {
    this.enter(stage)
    if (this.#ranks === 1) return true
    const c = this.#control
    // Read the phase before arriving: once we have arrived, the last rank may increment it at any time.
    this.#phase = Atomics.load(c, CONTROL.barrierPhase)
    this.#entered = Atomics.add(c, rankSlot(this.#rank, RANK.barriers), 1) + 1
    if (Atomics.load(c, CONTROL.abort) !== 0) throw new StepAborted()
    if (Atomics.add(c, CONTROL.arrived, 1) === this.#ranks - 1) {
      // No rank can arrive at the next barrier before the phase changes, so the order of these two is safe.
      Atomics.store(c, CONTROL.arrived, 0)
      Atomics.add(c, CONTROL.barrierPhase, 1)
      Atomics.notify(c, CONTROL.barrierPhase)
      return true
    }
    this.#start = performance.now()
    this.#recordedAt = this.#recorder?.now() ?? 0
    return false
  }

  /** Counts the wait; returns its milliseconds. */
  #leave(stage: Stage): number {
    const waited = performance.now() - this.#start
    const at = STAGES.indexOf(stage)
    this.waitMs[at] = (this.waitMs[at] as number) + waited
    this.#waited += waited
    this.#recorder?.add(WAIT_IDS[at] as number, this.#recordedAt)
    if (Atomics.load(this.#control, CONTROL.abort) !== 0) throw new StepAborted()
    return waited
  }

  /**
   * Spinning pays when the others are about to arrive: each short wait allows a little more of it; a long one (a busy machine, a
   * rank without a core) resets it, so that a rank that waits for long releases its core at once.
   * models/tiny, 2 ranks on 2 cores, tokens/s with a core busy / quiet: never spinning 297 / 355, always 150 / 815, this 274 / 795.
   */
  #adapt(waitedMs: number): void {
    if (this.#maxSpins === 0) return
    this.#spins = waitedMs < SHORT_WAIT_MS ? Math.min(this.#maxSpins, Math.ceil(this.#spins * 1.1)) : MIN_SPINS
  }

  #park(stage: Stage): void {
    const c = this.#control
    while (Atomics.load(c, CONTROL.barrierPhase) === this.#phase) Atomics.wait(c, CONTROL.barrierPhase, this.#phase, this.#timeLeft(stage))
  }

  /** Milliseconds of the wait until its deadline. Throws RankLate. */
  #timeLeft(stage: Stage): number {
    const left = this.#deadlineMs - (performance.now() - this.#start)
    if (left <= 0) throw new RankLate(this.#describeLate(this.#entered, stage))
    return left
  }

  #describeLate(entered: number, stage: Stage): string {
    for (let rank = 0; rank < this.#ranks; rank++) {
      if (Atomics.load(this.#control, rankSlot(rank, RANK.barriers)) >= entered) continue
      const where = STAGES[Atomics.load(this.#control, rankSlot(rank, RANK.stage))] ?? 'an unknown place'
      return `rank ${rank} did not come to the ${stage} within ${this.#deadlineMs} ms; it was last seen at: ${where}`
    }
    return `the ${stage} did not complete within ${this.#deadlineMs} ms`
  }

  /** Ends the step for everyone. True if this rank was the first to. */
  abort(): boolean {
    const c = this.#control
    const first = Atomics.compareExchange(c, CONTROL.abort, 0, 1 + this.#rank) === 0
    Atomics.add(c, CONTROL.barrierPhase, 1)
    Atomics.notify(c, CONTROL.barrierPhase)
    // The coordinator waits on this word for the step's end, which may never come.
    Atomics.add(c, CONTROL.coordinatorWake, 1)
    Atomics.notify(c, CONTROL.coordinatorWake)
    return first
  }

  get aborted(): boolean {
    return Atomics.load(this.#control, CONTROL.abort) !== 0
  }
}
