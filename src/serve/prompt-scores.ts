// The prompt's own tokens in an answer: echoed before the choice's text, and scored. Long prompts are written in slices, so that other requests
// are served in between. Knows shapes only.
import { setImmediate } from 'node:timers/promises'
import type { Completion, TokenLogprobs } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import { type CompletionLogprobs, type ScoredToken, type TokenSource, tokenName } from './openai-format.js'
import type { ServedEngine } from './served-model.js'

/** Tokens that are written at a time. */
const SLICE = 512

/** The text that a prompt is echoed as: a text as it was sent, token ids decoded; `specials`: with special tokens as they are written. */
export function echoText(prompt: Prompt, engine: Pick<ServedEngine, 'detokenize' | 'tokenPiece'>, specials: boolean): string {
  if (typeof prompt === 'string') return prompt
  if (!Array.isArray(prompt)) return (prompt as { text: string }).text
  const pieces = (prompt as readonly number[]).map((id) => engine.tokenPiece(id))
  if (!specials || pieces.every(({ special }) => special === undefined)) return engine.detokenize(prompt as readonly number[])
  return Buffer.concat(pieces.map(({ bytes, special }) => (special === undefined ? bytes : Buffer.from(special)))).toString('utf8')
}

/** The logprobs of the prompt, as OpenAI's echo has them: the first token, which follows nothing, has null. `top`: most likely tokens of each. */
export async function echoedLogprobs(
  { promptTokens = [], promptLogprobs = [] }: Completion,
  writer: CompletionLogprobs,
  top: number,
): Promise<Record<string, unknown[]>> {
  const all: Record<string, unknown[]> = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }
  await inSlices(promptTokens, (ids, from) => {
    const entries = ids.map((token, i): ScoredToken => {
      const scored = promptLogprobs[from + i]
      return scored ? { ...scored, top: scored.top.slice(0, top) } : { token, logprob: null, top: null }
    })
    append(all, writer.write(entries))
  })
  return all
}

/** Appends to each list the one of the same name. */
export function append(all: Record<string, unknown[]>, more: object): void {
  for (const [name, list] of Object.entries(more) as [string, unknown[]][]) for (const item of list) all[name]?.push(item)
}

/**
 * vLLM's prompt_logprobs: for each token of the prompt an object by token id, null for the first. The rank of a token that is not among the
 * most likely ones is not known, and null. `top`: most likely tokens of each.
 */
export async function vllmPromptLogprobs(
  { promptLogprobs = [] }: Completion,
  source: TokenSource,
  top: number,
): Promise<(Record<string, object> | null)[]> {
  const written: (Record<string, object> | null)[] = []
  const describe = (scored: TokenLogprobs) => {
    const likely = scored.top.slice(0, top)
    const entry = (token: number, logprob: number, rank: number | null) => ({ logprob, rank, decoded_token: tokenName(source, token) })
    const rest = likely.some(({ token }) => token === scored.token) ? [] : [[String(scored.token), entry(scored.token, scored.logprob, null)]]
    return Object.fromEntries([...likely.map(({ token, logprob }, i) => [String(token), entry(token, logprob, i + 1)]), ...rest])
  }
  await inSlices(promptLogprobs, (list) => {
    for (const scored of list) written.push(scored && describe(scored))
  })
  return written
}

async function inSlices<T>(list: readonly T[], write: (slice: readonly T[], from: number) => void): Promise<void> {
  for (let from = 0; from < list.length; from += SLICE) {
    if (from > 0) await setImmediate()
    write(list.slice(from, from + SLICE), from)
  }
}
