// Barriers between ranks over the control buffer, with a deadline that names the late rank, and one abort word.
// A collective is: write your part to the exchange memory, barrier, read the others'. Its slots are written again only
// after another barrier has passed, so one barrier each is enough. Knows nothing of models.
import { CONTROL, RANK, rankSlot } from '../mailbox/mailbox-layout.js'
import { eventId, type ProfileRecorder } from '../profile/profile-recorder.js'
import { SITES, type Site } from '../protocol.js'

/** Another rank failed: leave the step quietly, the coordinator knows. */
export class StepAborted extends Error {
  override readonly name = 'StepAborted'
}

/** A rank did not come to a collective in time. */
export class RankLate extends Error {
  override readonly name = 'RankLate'
}

/** A wait that spinning could have bridged; a parked thread wakes in about 20 us. */
const SHORT_WAIT_MS = 0.25
const FEWEST_SPINS = 100

const WAIT_IDS = SITES.map((site) => eventId(`wait: ${site}`))

export class Collectives {
  readonly #control: Int32Array
  readonly #rank: number
  readonly #ranks: number
  readonly #mostSpins: number
  #spins: number
  readonly #deadlineMs: number
  // Of the wait at hand: a barrier allocates nothing.
  #generation = 0
  #entered = 0
  #start = 0
  #noted = 0
  /** Milliseconds spent waiting at each site since attaching. */
  readonly waitMs = new Float64Array(SITES.length)
  #waited = 0
  readonly #recorder: ProfileRecorder | undefined
  /** Acts on an injected fault. */
  readonly #onFault: (fault: number, at: number) => void

  constructor(
    control: Int32Array,
    rank: number,
    ranks: number,
    spins: number,
    deadlineMs: number,
    onFault: (fault: number, at: number) => void = () => {},
    recorder?: ProfileRecorder,
  ) {
    this.#recorder = recorder
    this.#onFault = onFault
    this.#control = control
    this.#rank = rank
    this.#ranks = ranks
    this.#mostSpins = spins
    this.#spins = spins
    this.#deadlineMs = deadlineMs
  }

  /** The sum of waitMs. */
  get waitedMs(): number {
    return this.#waited
  }

  /** Notes where this rank is, for whoever has to name it. */
  at(site: Site): void {
    const at = SITES.indexOf(site)
    Atomics.store(this.#control, rankSlot(this.#rank, RANK.site), at)
    Atomics.add(this.#control, rankSlot(this.#rank, RANK.progress), 1)
    const fault = Atomics.load(this.#control, rankSlot(this.#rank, RANK.fault))
    if (fault !== 0) this.#onFault(fault, at)
  }

  /** Returns when every rank has called it. Throws StepAborted or RankLate. At one rank it only notes the site. */
  barrier(site: Site): void {
    if (this.#arrive(site)) return
    const c = this.#control
    for (let i = 0; i < this.#spins; i++) if (Atomics.load(c, CONTROL.generation) !== this.#generation) break
    if (Atomics.load(c, CONTROL.generation) === this.#generation) this.#park(site)
    this.#adapt(this.#leave(site))
  }

  /** The same for a rank that must serve its event loop meanwhile: a GPU's answers come through it. */
  async barrierAsync(site: Site): Promise<void> {
    if (this.#arrive(site)) return
    while (Atomics.load(this.#control, CONTROL.generation) === this.#generation) {
      const wait = Atomics.waitAsync(this.#control, CONTROL.generation, this.#generation, this.#timeLeft(site))
      if (wait.async) await wait.value
    }
    this.#leave(site)
  }

  /** True: all ranks are here already. Else the fields of the wait are set. */
  #arrive(site: Site): boolean {
    this.at(site)
    if (this.#ranks === 1) return true
    const c = this.#control
    // Read the generation before arriving: once we have arrived, the last rank may bump it at any time.
    this.#generation = Atomics.load(c, CONTROL.generation)
    this.#entered = Atomics.add(c, rankSlot(this.#rank, RANK.barriers), 1) + 1
    if (Atomics.load(c, CONTROL.abort) !== 0) throw new StepAborted()
    if (Atomics.add(c, CONTROL.arrived, 1) === this.#ranks - 1) {
      // Nobody can arrive at the next barrier before the generation changes, so the order of these two is safe.
      Atomics.store(c, CONTROL.arrived, 0)
      Atomics.add(c, CONTROL.generation, 1)
      Atomics.notify(c, CONTROL.generation)
      return true
    }
    this.#start = performance.now()
    this.#noted = this.#recorder?.now() ?? 0
    return false
  }

  /** Notes the wait; returns its milliseconds. */
  #leave(site: Site): number {
    const waited = performance.now() - this.#start
    const at = SITES.indexOf(site)
    this.waitMs[at] = (this.waitMs[at] as number) + waited
    this.#waited += waited
    this.#recorder?.add(WAIT_IDS[at] as number, this.#noted)
    if (Atomics.load(this.#control, CONTROL.abort) !== 0) throw new StepAborted()
    return waited
  }

  /**
   * Spinning pays when the others are about to come: after each short wait it may go on a little longer; after a long one
   * (a busy machine, a rank without a core) it begins anew, so that a rank that waits for long gives its core away at once.
   * models/tiny, 2 ranks on 2 cores, tokens/s with a core busy / quiet: never spinning 297 / 355, always 150 / 815, this 274 / 795.
   */
  #adapt(waitedMs: number): void {
    if (this.#mostSpins === 0) return
    this.#spins = waitedMs < SHORT_WAIT_MS ? Math.min(this.#mostSpins, Math.ceil(this.#spins * 1.1)) : FEWEST_SPINS
  }

  #park(site: Site): void {
    const c = this.#control
    while (Atomics.load(c, CONTROL.generation) === this.#generation) Atomics.wait(c, CONTROL.generation, this.#generation, this.#timeLeft(site))
  }

  /** Milliseconds of the wait until its deadline. Throws RankLate. */
  #timeLeft(site: Site): number {
    const left = this.#deadlineMs - (performance.now() - this.#start)
    if (left <= 0) throw new RankLate(this.#describeLate(this.#entered, site))
    return left
  }

  #describeLate(entered: number, site: Site): string {
    for (let rank = 0; rank < this.#ranks; rank++) {
      if (Atomics.load(this.#control, rankSlot(rank, RANK.barriers)) >= entered) continue
      const where = SITES[Atomics.load(this.#control, rankSlot(rank, RANK.site))] ?? 'an unknown place'
      return `rank ${rank} did not come to the ${site} within ${this.#deadlineMs} ms; it was last seen at: ${where}`
    }
    return `the ${site} did not complete within ${this.#deadlineMs} ms`
  }

  /** Ends the step for everyone. True if this rank was the first to. */
  abort(): boolean {
    const c = this.#control
    const first = Atomics.compareExchange(c, CONTROL.abort, 0, 1 + this.#rank) === 0
    Atomics.add(c, CONTROL.generation, 1)
    Atomics.notify(c, CONTROL.generation)
    // The coordinator waits on the attention word for the step's end, which may never come.
    Atomics.add(c, CONTROL.attention, 1)
    Atomics.notify(c, CONTROL.attention)
    return first
  }

  get aborted(): boolean {
    return Atomics.load(this.#control, CONTROL.abort) !== 0
  }
}
