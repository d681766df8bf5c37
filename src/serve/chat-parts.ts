// What a chat completion says, without its envelope: the other endpoints for conversations write the same in theirs.

export interface ChatToolCall {
  readonly index?: number
  readonly id?: string
  readonly function?: { readonly name?: string; readonly arguments?: string }
}

interface TokenLogprob {
  readonly token: string
  readonly logprob: number
  readonly bytes: readonly number[]
  readonly top_logprobs: readonly object[]
}

/** A choice of a whole answer. */
export interface ChatChoice {
  readonly message: { readonly content: string | null; readonly tool_calls?: readonly ChatToolCall[] }
  readonly logprobs: { readonly content: readonly TokenLogprob[] } | null
  readonly finish_reason: string
}

/** A choice of a chunk. */
export interface ChatDelta {
  readonly delta: { readonly content?: string | null; readonly tool_calls?: readonly ChatToolCall[] }
  readonly logprobs: { readonly content: readonly TokenLogprob[] } | null
  readonly finish_reason: string | null
}
