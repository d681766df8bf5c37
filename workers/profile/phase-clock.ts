// How long a rank computes in each phase of its steps, without its waits at collectives. It reads the clock twice for each phase and
// layer, so it is always on, unlike a profile.
import { PHASES, type Phase } from '../protocol.js'

export class PhaseClock {
  /** Milliseconds of each phase since attaching. */
  readonly ms = new Float64Array(PHASES.length)
  /** Milliseconds that the rank has waited since attaching. */
  readonly #waited: () => number
  #phase = -1
  #since = 0
  #before = 0

  constructor(waited: () => number) {
    this.#waited = waited
  }

  /** undefined: time outside of all phases. */
  enter(phase: Phase | undefined): void {
    const now = performance.now()
    const waited = this.#waited()
    if (this.#phase >= 0) this.ms[this.#phase] = (this.ms[this.#phase] as number) + Math.max(0, now - this.#since - (waited - this.#before))
    this.#phase = phase === undefined ? -1 : PHASES.indexOf(phase)
    this.#since = now
    this.#before = waited
  }
}
