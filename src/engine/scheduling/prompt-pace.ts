// How many rows of prompts a step may have, so that it ends in time: followed from how long the last steps took. Which rows share a step
// changes no bit of any output, so this may follow a clock.

/** A step of prompts alone ends within about this time: what a request that arrives waits for at most. */
const ALONE_MS = 250
/** A step that sequences decode in as well: what each of their tokens may be late by. */
const BESIDE_MS = 60
/** Rows of the first step, and the fewest that a pace is measured with: a few rows take as long as one. */
const FIRST = 256
const FEWEST = 64
/** Rows that a step has however long they take: on a slow device prompts would hardly get on beside others. */
const LEAST = 32

export interface PromptPace {
  /** Prompt rows of the next step. decoding: other sequences decode in it. */
  rows(decoding: boolean): number
  /** A step with so many prompt rows took so long. */
  note(promptRows: number, ms: number): void
}

/** Always the same. */
export function fixedPace(rows: number): PromptPace {
  return { rows: () => rows, note() {} }
}

/** Up to `most` rows: as many as would have ended in time at the pace of the last step of many. */
export class MeasuredPace implements PromptPace {
  readonly #most: number
  #msPerRow: number | undefined

  constructor(most: number) {
    this.#most = most
  }

  rows(decoding: boolean): number {
    const inTime = this.#msPerRow === undefined ? FIRST : Math.floor((decoding ? BESIDE_MS : ALONE_MS) / this.#msPerRow)
    return Math.min(this.#most, Math.max(LEAST, inTime))
  }

  note(promptRows: number, ms: number): void {
    if (promptRows === 0 || !(ms > 0)) return
    const msPerRow = ms / promptRows
    // A step that was late for another reason is forgotten after few rows, too.
    if (promptRows >= Math.min(FEWEST, this.#most) || msPerRow < (this.#msPerRow ?? 0)) this.#msPerRow = msPerRow
  }
}
