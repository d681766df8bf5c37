// Completions as OpenAI's API writes them. Knows shapes only.
import type { Engine } from '../engine/engine.js'
import type { Completion, TokenLogprobs } from '../engine/generation.js'
import type { FinishReason } from '../engine/scheduling/sequence.js'

type Decode = (id: number) => string

export function decoder(engine: Pick<Engine, 'detokenize'>): Decode {
  return (id) => engine.detokenize([id])
}

export function finishReason(reason: FinishReason): 'stop' | 'length' {
  return reason === 'length' ? 'length' : 'stop'
}

export function usage(completions: readonly Completion[], choices: number): object {
  // The prompt of several choices counts once.
  const prompts = completions.filter((_, i) => i % choices === 0)
  const sum = (of: (c: Completion) => number, list: readonly Completion[]) => list.reduce((total, c) => total + of(c), 0)
  const prompt = sum((c) => c.usage.promptTokens, prompts)
  const completion = sum((c) => c.usage.completionTokens, completions)
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum((c) => c.usage.cachedTokens, prompts) },
  }
}

/** Of a choice of /v1/completions; `offset`: characters of the output before these tokens. */
export function completionLogprobs(logprobs: readonly TokenLogprobs[] | undefined, decode: Decode, offset = 0): object | null {
  if (!logprobs) return null
  const texts = logprobs.map(({ token }) => decode(token))
  let at = offset
  return {
    tokens: texts,
    token_logprobs: logprobs.map(({ logprob }) => logprob),
    top_logprobs: logprobs.map(({ top }) => Object.fromEntries(top.map(({ token, logprob }) => [decode(token), logprob]))),
    text_offset: texts.map((text) => {
      const start = at
      at += text.length
      return start
    }),
  }
}

/** Of a choice of /v1/chat/completions. */
export function chatLogprobs(logprobs: readonly TokenLogprobs[] | undefined, decode: Decode): object | null {
  if (!logprobs) return null
  const entry = (token: number, logprob: number) => {
    const text = decode(token)
    return { token: text, logprob, bytes: [...Buffer.from(text)] }
  }
  return {
    content: logprobs.map(({ token, logprob, top }) => ({ ...entry(token, logprob), top_logprobs: top.map((t) => entry(t.token, t.logprob)) })),
    refusal: null,
  }
}
