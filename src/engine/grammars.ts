// The grammars of an engine's requests: threads that the first request with one starts.

import { failed, GrammarPool } from '../constraints/grammar-pool.js'
import { readGrammar } from '../constraints/left-recursion.js'
import { Refused } from '../constraints/unsupported.js'
import { constraintOf, type ResolvedGenerateParams } from '../options/generate-params.js'
import type { EngineParts } from './engine-info.js'
import { noTokenizer } from './prompts.js'

export class Grammars {
  readonly #parts: Pick<EngineParts, 'dir' | 'model' | 'endIds' | 'tokenizer'>
  #pool: GrammarPool | undefined

  constructor(parts: Pick<EngineParts, 'dir' | 'model' | 'endIds' | 'tokenizer'>) {
    this.#parts = parts
  }

  pool = (): GrammarPool => {
    const { dir, model, endIds } = this.#parts
    this.#pool ??= new GrammarPool(dir, model.config.vocab, endIds)
    return this.#pool
  }

  /** Rejects with RequestError TOKENIZER_MISSING, or CONSTRAINT_FAILED for a caller's own grammar that cannot be read. */
  async check(params: ResolvedGenerateParams): Promise<void> {
    if (constraintOf(params) && !this.#parts.tokenizer) throw noTokenizer()
    if (!params.grammar) return
    try {
      readGrammar(params.grammar.text)
    } catch (error) {
      throw error instanceof Refused ? failed(error.message) : error
    }
  }

  async end(): Promise<void> {
    await this.#pool?.end()
  }
}
