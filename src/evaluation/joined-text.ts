// A context and its continuation as one sequence of tokens, as lm-evaluation-harness joins and cuts them. Knows no engine.
import { RequestError } from '../errors.js'

export interface JoinedTokens {
  readonly ids: readonly number[]
  /** Where the continuation's own tokens begin. */
  readonly from: number
}

/**
 * Moves white space at the end of a context to its continuation: tokenizers join a space with the word after it, so a context that ends with a
 * space has other tokens than the same text in the whole. A context of white space alone stays: nothing would be left to condition on.
 */
export function splitContext(context: string, continuation: string): [context: string, continuation: string] {
  const kept = context.trimEnd()
  return kept === '' ? [context, continuation] : [kept, context.slice(kept.length) + continuation]
}

/**
 * Cuts what does not fit from the left of the context. The last token is scored and takes no place, so contextTokens + 1 tokens fit.
 * Throws RequestError PROMPT_TOO_LONG if nothing of the context would be left.
 */
export function cutToContext({ ids, from }: JoinedTokens, contextTokens: number): JoinedTokens & { readonly truncatedTokens: number } {
  const truncatedTokens = Math.max(0, ids.length - 1 - contextTokens)
  if (truncatedTokens < from) return { ids: ids.slice(truncatedTokens), from: from - truncatedTokens, truncatedTokens }
  throw new RequestError('PROMPT_TOO_LONG', {
    what: 'a choice alone is longer than the context',
    expected: `at most ${contextTokens} tokens`,
    actual: String(ids.length - from),
    remedy: 'Shorten the choice, or load the model with a larger maxContext.',
  })
}
