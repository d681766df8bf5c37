// How long a rank computes in each part of its steps, without its waits at collectives. Two reads of the clock a part and layer: it is
// always on, where a profile is not.
import { PHASES, type Phase } from '../protocol.js'

export class PhaseClock {
  /** Milliseconds of each phase since attaching. */
  readonly ms = new Float64Array(PHASES.length)
  /** Milliseconds that the rank has waited in all. */
  readonly #waited: () => number
  #phase = -1
  #since = 0
  #before = 0

  constructor(waited: () => number) {
    this.#waited = waited
  }

  /** undefined: what is none of them. */
  enter(phase: Phase | undefined): void {
    const now = performance.now()
    const waited = this.#waited()
    if (this.#phase >= 0) this.ms[this.#phase] = (this.ms[this.#phase] as number) + Math.max(0, now - this.#since - (waited - this.#before))
    this.#phase = phase === undefined ? -1 : PHASES.indexOf(phase)
    this.#since = now
    this.#before = waited
  }
}
