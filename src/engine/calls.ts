// What calls that generate have in common: parameters, prompts, adapter and places, then their requests.

import { invalidOption } from '../options/check.js'
import { checkParams } from '../options/generate-params.js'
import type { GenerateManyParams } from '../options/public-types.js'
import type { TokenPieces } from '../tokenizer/token-pieces.js'
import type { Admission } from './admission.js'
import { withControlStops } from './control-stops.js'
import type { EngineInfo, EngineParts } from './engine-info.js'
import type { Chunk, Completion } from './generation.js'
import type { Grammars } from './grammars.js'
import type { Prompt, PromptReader } from './prompts.js'
import { type CallRequests, startRequests } from './start-requests.js'

export class Calls {
  readonly #parts: EngineParts
  readonly #info: EngineInfo
  readonly #prompts: PromptReader
  readonly #admission: Admission
  readonly #grammars: Grammars
  readonly #pieces: TokenPieces
  readonly #endOfText: ReadonlySet<number>
  /** Prompts of calls that came before close(): being rendered or tokenized on other threads. */
  readonly #preparing = new Set<Promise<unknown>>()

  constructor(parts: EngineParts, info: EngineInfo, prompts: PromptReader, admission: Admission, grammars: Grammars, pieces: TokenPieces) {
    this.#parts = parts
    this.#info = info
    this.#prompts = prompts
    this.#admission = admission
    this.#grammars = grammars
    this.#pieces = pieces
    this.#endOfText = new Set(parts.endIds)
  }

  /** Work that close() waits for. */
  async prepared<T>(work: Promise<T>): Promise<T> {
    this.#preparing.add(work)
    try {
      return await work
    } finally {
      this.#preparing.delete(work)
    }
  }

  async allPrepared(): Promise<void> {
    while (this.#preparing.size > 0) await Promise.allSettled([...this.#preparing])
  }

  /** Starts the requests of a call, or none if one of its prompts is not valid. */
  async start(
    prompts: readonly Prompt[],
    params: GenerateManyParams,
    requests: CallRequests,
    push: (index: number, chunk: Chunk) => void,
    call = 'generate',
  ): Promise<Completion[]> {
    if (call !== 'chat') this.#admission.checkOpen()
    const resolved = checkParams(params, this.#info.vocab, 'api', call)
    const { adapters, coordinator, draft, statistics, tokenizer } = this.#parts
    if (resolved.stop.length > 0 && !tokenizer) {
      throw invalidOption({
        what: 'stop cannot be used with this model',
        expected: 'a model with a tokenizer',
        actual: 'none',
        remedy: 'Use stopTokenIds.',
        option: 'stop',
      })
    }
    return adapters.using(resolved.lora, async (adapter) => {
      await this.prepared(this.#grammars.check(resolved))
      const effective = tokenizer ? withControlStops(resolved, tokenizer) : resolved
      const room = Math.min(1, effective.maxTokens)
      const ids = await this.prepared(Promise.all(prompts.map((prompt) => this.#prompts.ids(prompt, room, effective.bos))))
      const most = this.#admission.admit(ids.length, resolved.n)
      const places = { most, free: () => this.#admission.free }
      const specialText = (id: number) => this.#pieces.piece(id).special
      const grammars = this.#grammars.pool
      return startRequests(
        { coordinator, statistics, tokenizer, adapter, endOfText: this.#endOfText, specialText, grammars, draft },
        ids,
        effective,
        places,
        requests,
        push,
      )
    })
  }
}
