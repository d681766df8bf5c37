// What proposes draft tokens for one sequence, as the scheduler sees it.

export interface Drafts {
  /** Draft tokens that were put into steps, and those of them that were right; the scheduler counts. */
  drafted: number
  accepted: number
  /**
   * Up to `limit` tokens that may follow `tokens`, which only ever grow between calls; undefined: they are being made, and the
   * coordinator is woken when they are there. Asked again for the same tokens it answers the same.
   */
  propose(tokens: readonly number[], limit: number): readonly number[] | undefined
  /** It will propose nothing after `length` tokens, so a row may run ahead there. */
  restsAt(length: number): boolean
  /** The sequence has ended. */
  close(): void
}
