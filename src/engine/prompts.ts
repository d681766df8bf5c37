// Prompts as token ids, checked against the model: what every call begins with. Knows no requests.

import { OptionError, RequestError } from '../errors.js'
import { cutToContext, type JoinedTokens, splitContext } from '../evaluation/joined-text.js'
import { show } from '../options/check.js'
import type { MarkedText, Tokenizer } from '../tokenizer/tokenizer-interface.js'

/** A text, token ids, or a text in which control tokens of its author's choice are plain text (as chat templates make it). */
export type Prompt = string | readonly number[] | MarkedText

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

/** Where a tokenizer has no bound of its own: a long unknown word may be one token. */
const MAX_BYTES_PER_TOKEN = 1024

function isMarked(prompt: unknown): prompt is MarkedText {
  const { text, mark } = (prompt ?? {}) as { text?: unknown; mark?: unknown }
  return typeof text === 'string' && typeof mark === 'string' && mark !== ''
}

export class PromptReader {
  readonly #tokenizer: Tokenizer | undefined
  readonly #limits: PromptLimits

  constructor(tokenizer: Tokenizer | undefined, limits: PromptLimits) {
    this.#tokenizer = tokenizer
    this.#limits = limits
  }

  /**
   * Token ids of a text, made on another thread; `bos`: behind the id that begins a document, once. Rejects with RequestError TOKENIZER_MISSING
   * or PROMPT_TOO_LONG, and OptionError where there is no such id.
   */
  async tokenize(text: string | MarkedText, bos = false): Promise<number[]> {
    if (this.#tokenizer) this.#checkLength(typeof text === 'string' ? text : text.text, this.#tokenizer)
    const ids = await this.#encode(text)
    const first = bos ? this.bosId() : undefined
    return first === undefined || ids[0] === first ? ids : [first, ...ids]
  }

  /** The same for a text of any length. */
  async #encode(text: string | MarkedText): Promise<number[]> {
    if (this.#tokenizer) return typeof text === 'string' ? this.#tokenizer.encodeAsync(text) : this.#tokenizer.encodeMarked(text)
    throw noTokenizer()
  }

  /** Before a text is tokenized: one that cannot fit the context costs nothing. */
  #checkLength(text: string, tokenizer: Tokenizer): void {
    const { contextTokens } = this.#limits
    const most = contextTokens * Math.min(tokenizer.maxBytesPerToken, MAX_BYTES_PER_TOKEN)
    const bytes = Buffer.byteLength(text)
    if (bytes <= most) return
    throw new RequestError('PROMPT_TOO_LONG', {
      what: 'the prompt cannot fit the context',
      expected: `at most ${contextTokens} tokens, which have at most ${most} bytes of text`,
      actual: `${bytes} bytes`,
      remedy: 'Shorten the prompt.',
    })
  }

  /** The text of token ids; each '' without a tokenizer. Special tokens are left out. */
  textOf(ids: readonly number[]): string {
    return this.#tokenizer?.decode(ids) ?? ''
  }

  /** Id of the token that begins a document. */
  bosId(): number {
    const id = this.#tokenizer?.bosId
    if (id !== undefined) return id
    throw new OptionError('OPTION_INVALID', {
      option: 'bos',
      what: 'bos cannot be used with this model',
      expected: 'a tokenizer with a token that begins a document',
      actual: this.#tokenizer ? 'a tokenizer without one' : 'no tokenizer',
      remedy: 'Omit bos, and put the id that begins a document before the prompt yourself.',
    })
  }

  /** Without any check but of its type. */
  async tokensOf(prompt: Prompt): Promise<number[]> {
    if (Array.isArray(prompt)) return [...(prompt as readonly number[])]
    if (typeof prompt !== 'string' && !isMarked(prompt)) {
      throw new RequestError('TOKEN_INVALID', {
        what: 'the prompt has the wrong type',
        expected: 'a text or an array of token ids',
        actual: show(prompt),
        remedy: 'Pass one of them.',
      })
    }
    return this.tokenize(prompt)
  }

  /** Whether bosId() has an id. */
  get hasBos(): boolean {
    return this.#tokenizer?.bosId !== undefined
  }

  /** A context and its continuation as ids, of any length. Rejects with RequestError PROMPT_EMPTY if one of them has no tokens of its own. */
  async join(context: Prompt, continuation: Prompt, bos: boolean): Promise<JoinedTokens> {
    const areTexts = typeof context === 'string' && typeof continuation === 'string'
    const [start, end] = areTexts ? splitContext(context, continuation) : [context, continuation]
    const before = typeof start === 'string' ? await this.#encode(start) : await this.tokensOf(start)
    // An array and a text cannot be tokenized together.
    const all = areTexts ? await this.#encode(`${start}${end}`) : [...before, ...(await this.tokensOf(end))]
    const prefix = bos ? [this.bosId()] : []
    const ids = [...prefix, ...all]
    const from = prefix.length + before.length
    if (from === 0) throw emptyPrompt('the context has no tokens', 'Give one, or pass bos: true.')
    if (ids.length <= from) throw emptyPrompt('the continuation has no tokens of its own', 'Give a longer one.')
    return { ids, from }
  }

  /** The same, cut from the left to what fits the context. Rejects with RequestError PROMPT_TOO_LONG too. */
  async joinCut(context: Prompt, continuation: Prompt, bos: boolean): Promise<JoinedTokens & { readonly truncatedTokens: number }> {
    return cutToContext(await this.join(context, continuation, bos), this.#limits.contextTokens)
  }

  /**
   * Token ids that the model has, with room for `room` more. `bos`: put the token that begins a document before them unless they begin
   * with it; undefined: for a text, as the tokenizer says. Rejects with RequestError.
   */
  async ids(prompt: Prompt, room: number, bos: boolean | undefined): Promise<number[]> {
    const tokens = await this.tokensOf(prompt)
    const automatic = typeof prompt === 'string' && tokens.length > 0 && this.#tokenizer?.addsBos === true
    const first = (bos ?? automatic) ? this.bosId() : undefined
    const ids = first !== undefined && tokens[0] !== first ? [first, ...tokens] : tokens
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

export function noTokenizer(): RequestError {
  return new RequestError('TOKENIZER_MISSING', {
    what: 'this model has no tokenizer.json',
    expected: 'token ids',
    actual: 'a text',
    remedy: 'Give the prompt as token ids, for example [1, 2, 3].',
  })
}

export function emptyPrompt(what: string, remedy: string): RequestError {
  return new RequestError('PROMPT_EMPTY', { what, expected: 'at least one token', actual: 'none', remedy })
}
