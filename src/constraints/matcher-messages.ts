// What the engine's thread and a thread that matches grammars say to each other. A thread answers its jobs in order, one answer a job.

/** What a text must match: a grammar in EBNF, or a TagFormat as JSON. */
export interface GrammarSource {
  readonly kind: 'grammar' | 'tag'
  readonly text: string
}

export interface MatcherData {
  /** Of the model: its tokenizer is read from there. */
  readonly dir: string
  readonly vocab: number
  /** Tokens that end the model's texts: allowed where the text may end, and nowhere else. */
  readonly stopIds: readonly number[]
}

export type MatcherJob =
  /** Follows a text: `tokens` are those that it has already. The mask of the next token is left in `mask`. */
  | {
      readonly type: 'open'
      readonly session: number
      readonly source: GrammarSource
      readonly tokens: readonly number[]
      readonly mask: Int32Array
    }
  | { readonly type: 'accept'; readonly session: number; readonly token: number }
  | { readonly type: 'close'; readonly session: number }

export interface MatcherAnswer {
  /** Tokens that the mask allows. */
  readonly allowed?: number
  /** The job failed; `aborted`: and the thread is of no use any more. */
  readonly failure?: { readonly reason: string; readonly aborted: boolean }
}
