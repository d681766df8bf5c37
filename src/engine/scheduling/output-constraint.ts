// What a sequence's output is held to, as the scheduler and the mailbox see it.

export interface OutputConstraint {
  /** `mask` is that of the token after all that were accepted. */
  readonly ready: boolean
  /** One bit for each token: it may come next. */
  readonly mask: Int32Array
  /** A token was appended; not ready until the matcher has answered. */
  accept(token: number): void
}
