// Completions as OpenAI's API writes them. Knows shapes only.
import type { Completion, TokenLogprobs } from '../engine/generation.js'
import type { FinishReason } from '../engine/scheduling/sequence.js'
import type { ServedEngine } from './served-model.js'

export type TokenSource = Pick<ServedEngine, 'tokenPiece'>

/** A token of an answer; null: the first one of a prompt, which follows nothing. */
export type ScoredToken = TokenLogprobs | { readonly token: number; readonly logprob: null; readonly top: null }

export function finishReason(reason: FinishReason): 'stop' | 'length' {
  return reason === 'length' ? 'length' : 'stop'
}

/** choices: completions of each prompt, whose prompt tokens count once. */
export function usage(completions: readonly Completion[], choices: number): object {
  const prompts = completions.filter((_, i) => i % choices === 0)
  const sum = (value: (c: Completion) => number, list: readonly Completion[]) => list.reduce((total, c) => total + value(c), 0)
  const prompt = sum((c) => c.usage.promptTokens, prompts)
  const completion = sum((c) => c.usage.completionTokens, completions)
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum((c) => c.usage.cachedTokens, prompts) },
  }
}

/** Writes the logprobs of one choice of /v1/completions, chunk by chunk. */
export class CompletionLogprobs {
  readonly #source: TokenSource
  readonly #specials: boolean
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  /** Length of the text that the tokens so far have completed, UTF-16 units. */
  #offset = 0

  /** specials: the text shows special tokens. */
  constructor(source: TokenSource, specials = false) {
    this.#source = source
    this.#specials = specials
  }

  /** The next token's text begins here: tokens of an echoed prompt may differ from the text that was sent, by a first blank for example. */
  seek(offset: number): void {
    this.#offset = offset
  }

  /**
   * text_offset is where the token's text begins in the choice's text: a token that continues a character has the offset of that character.
   * allowed_tokens, of a text under a schema or grammar: how many tokens might have come at each place; 1 says that nothing else could.
   * top_logprobs always has the sampled token, so it may have one entry more than was asked for.
   */
  write(logprobs: readonly ScoredToken[]): object {
    return {
      tokens: logprobs.map(({ token }) => tokenName(this.#source, token)),
      token_logprobs: logprobs.map(({ logprob }) => logprob),
      ...(logprobs.some(isHeld) && { allowed_tokens: logprobs.map((entry) => (isHeld(entry) ? entry.allowed : null)) }),
      top_logprobs: logprobs.map((entry) => (entry.logprob === null ? null : namedLogprobs(this.#source, withSampled(entry)))),
      text_offset: logprobs.map(({ token }) => {
        const offset = this.#offset
        const { bytes, special } = this.#source.tokenPiece(token)
        // Bytes of an unfinished character stay in the decoder.
        this.#offset += special === undefined ? this.#decoder.decode(bytes, { stream: true }).length : this.#specials ? special.length : 0
        return offset
      }),
    }
  }
}

function isHeld(entry: ScoredToken): entry is TokenLogprobs & { readonly allowed: number } {
  return 'allowed' in entry && entry.allowed !== undefined
}

/** The logprobs of a choice of /v1/chat/completions. `bytes` of consecutive tokens join to the text, also where a token is part of a character. */
export function chatLogprobs(logprobs: readonly TokenLogprobs[] | undefined, source: TokenSource): object | null {
  if (!logprobs) return null
  const entry = ({ token, logprob }: { readonly token: number; readonly logprob: number }) => ({
    token: tokenName(source, token),
    logprob,
    bytes: [...source.tokenPiece(token).bytes],
  })
  return {
    content: logprobs.map((scored) => ({ ...entry(scored), top_logprobs: scored.top.length === 0 ? [] : withSampled(scored).map(entry) })),
    refusal: null,
  }
}

type Scored = { readonly token: number; readonly logprob: number }

/** The most likely tokens, and the sampled one if it is not among them. */
function withSampled({ token, logprob, top }: TokenLogprobs): readonly Scored[] {
  return top.some((other) => other.token === token) ? top : [...top, { token, logprob }]
}

/** Tokens of one name (a piece that two ids share) do not overwrite each other: the later one is named by its id. */
function namedLogprobs(source: TokenSource, list: readonly Scored[]): Record<string, number> {
  const named = new Map<string, number>()
  for (const { token, logprob } of list) {
    const name = tokenName(source, token)
    named.set(named.has(name) ? idName(token) : name, logprob)
  }
  return Object.fromEntries(named)
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** A token's text; `bytes:\xf0\x9f` for one that is part of a character, as OpenAI writes it; `token_id:7` for one without text. */
export function tokenName(source: TokenSource, id: number): string {
  const { bytes, special } = source.tokenPiece(id)
  if (special !== undefined) return special
  if (bytes.length === 0) return idName(id)
  try {
    return strictUtf8.decode(bytes)
  } catch {
    return `bytes:${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`
  }
}

function idName(id: number): string {
  return `token_id:${id}`
}
