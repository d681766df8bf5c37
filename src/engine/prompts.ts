// Prompts as token ids, checked against the model: what every call begins with. Knows no requests.

import { OptionError, RequestError } from '../errors.js'
import { type JoinedTokens, splitContext } from '../evaluation/joined-text.js'
import { show } from '../options/check.js'
import type { Tokenizer } from '../tokenizer/tokenizer.js'

/** A text, or token ids. */
export type Prompt = string | readonly number[]

/** Throws RequestError TOKEN_INVALID for what is not an array of prompts. */
export function checkPrompts(prompts: unknown): readonly Prompt[] {
  // An array of numbers is one prompt.
  if (Array.isArray(prompts) && typeof prompts[0] !== 'number') return prompts as readonly Prompt[]
  throw new RequestError('TOKEN_INVALID', {
    what: 'the prompts have the wrong type',
    expected: 'an array of prompts, each a text or an array of token ids',
    actual: show(prompts),
    remedy: 'Pass [prompt] for one, or call generate(prompt).',
  })
}

export interface PromptLimits {
  readonly vocab: number
  /** Most tokens of a request. */
  readonly contextTokens: number
  /** Tokens that the cache holds. */
  readonly cacheTokens: number
}

export class PromptReader {
  readonly #tokenizer: Tokenizer | undefined
  readonly #limits: PromptLimits

  constructor(tokenizer: Tokenizer | undefined, limits: PromptLimits) {
    this.#tokenizer = tokenizer
    this.#limits = limits
  }

  /** Token ids of a text. Throws RequestError TOKENIZER_MISSING. */
  tokenize(text: string): number[] {
    if (this.#tokenizer) return this.#tokenizer.encode(text)
    throw new RequestError('TOKENIZER_MISSING', {
      what: 'this model has no tokenizer.json',
      expected: 'token ids',
      actual: 'a text',
      remedy: 'Give the prompt as token ids.',
    })
  }

  /** The text of token ids; each '' without a tokenizer. Special tokens are left out. */
  textOf(ids: readonly number[]): string {
    return this.#tokenizer?.decode(ids) ?? ''
  }

  /** Id of `<|endoftext|>`. */
  bosId(): number {
    const id = this.#tokenizer?.endOfText
    if (id !== undefined) return id
    throw new OptionError('OPTION_INVALID', {
      what: 'bos cannot be used with this model',
      expected: 'a tokenizer that knows <|endoftext|>',
      actual: this.#tokenizer ? 'a tokenizer without it' : 'no tokenizer',
      remedy: 'Leave bos out, and put the id that begins a document before the prompt yourself.',
    })
  }

  /** Without any check but of its type. */
  tokensOf(prompt: Prompt): number[] {
    if (typeof prompt !== 'string' && !Array.isArray(prompt)) {
      throw new RequestError('TOKEN_INVALID', {
        what: 'the prompt is of the wrong type',
        expected: 'a text or an array of token ids',
        actual: show(prompt),
        remedy: 'Pass one of them.',
      })
    }
    return typeof prompt === 'string' ? this.tokenize(prompt) : [...prompt]
  }

  /** Whether bosId() has an id. */
  get hasBos(): boolean {
    return this.#tokenizer?.endOfText !== undefined
  }

  /** A context and its continuation as ids, unchecked. Throws RequestError PROMPT_EMPTY if one of them has no tokens of its own. */
  join(context: Prompt, continuation: Prompt, bos: boolean): JoinedTokens {
    const areTexts = typeof context === 'string' && typeof continuation === 'string'
    const [start, end] = areTexts ? splitContext(context, continuation) : [context, continuation]
    const before = this.tokensOf(start)
    // An array and a text cannot be tokenized together.
    const all = areTexts ? this.tokenize(`${start}${end}`) : [...before, ...this.tokensOf(end)]
    const prefix = bos ? [this.bosId()] : []
    const ids = [...prefix, ...all]
    const from = prefix.length + before.length
    if (from === 0) throw emptyPrompt('the context has no tokens', 'Give one, or pass bos: true.')
    if (ids.length <= from) throw emptyPrompt('the continuation has no tokens of its own', 'Give a longer one.')
    return { ids, from }
  }

  /** Token ids that the model has, with room for as many more. Throws RequestError. */
  ids(prompt: Prompt, room: number, bos: boolean): number[] {
    const ids = [...(bos ? [this.bosId()] : []), ...this.tokensOf(prompt)]
    const { vocab, contextTokens, cacheTokens } = this.#limits
    if (ids.length === 0) throw emptyPrompt('the prompt has no tokens', 'Give a text or token ids.')
    const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocab)
    if (bad >= 0) {
      throw new RequestError('TOKEN_INVALID', {
        what: `token ${bad} of the prompt is not in the vocabulary`,
        expected: `an integer from 0 to ${vocab - 1}`,
        actual: show(ids[bad]),
        remedy: "Use this model's tokenizer.",
      })
    }
    if (ids.length + room > contextTokens) {
      throw new RequestError('PROMPT_TOO_LONG', {
        what: 'the prompt does not fit the context',
        expected: `at most ${contextTokens - room} tokens`,
        actual: `${ids.length}`,
        remedy:
          contextTokens === cacheTokens
            ? 'Shorten the prompt, or load with more cacheTokens.'
            : 'Shorten the prompt, or load with a larger maxContext (beyond what the model was trained for).',
      })
    }
    return ids
  }
}

export function emptyPrompt(what: string, remedy: string): RequestError {
  return new RequestError('PROMPT_EMPTY', { what, expected: 'at least one token', actual: 'none', remedy })
}
