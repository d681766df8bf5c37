// The thread that compiles grammars and matches tokens against them. Strangers' grammars run here: it may abort, and it may be ended.
import { parentPort, workerData } from 'node:worker_threads'
import { loadTokenizer } from '../tokenizer/tokenizer.js'
import { symbolsOf } from './byte-symbols.js'
import type { GrammarSource, MatcherAnswer, MatcherData, MatcherJob } from './matcher-messages.js'
import { type CompiledGrammar, type GrammarCompiler, type GrammarMatcher, loadXGrammar, reasonOf, type XGrammar } from './xgrammar.js'

/** Compiled grammars that are kept; the least recently used goes first. */
const MAX_COMPILED = 32

interface Session {
  readonly matcher: GrammarMatcher
  readonly mask: Int32Array
}

class Refused extends Error {}

class MatcherThread {
  readonly #library: XGrammar
  readonly #compiler: GrammarCompiler | undefined
  readonly #compiled = new Map<string, CompiledGrammar>()
  readonly #sessions = new Map<number, Session>()

  private constructor(library: XGrammar, compiler: GrammarCompiler | undefined) {
    this.#library = library
    this.#compiler = compiler
  }

  static async start({ dir, vocab }: MatcherData): Promise<MatcherThread> {
    const library = await loadXGrammar()
    if (dir === undefined) return new MatcherThread(library, undefined)
    const tokenizer = await loadTokenizer(dir, vocab)
    if (!tokenizer) throw new Error('the model has no tokenizer')
    const tokens = Array.from({ length: vocab }, (_, id) => symbolsOf(tokenizer.bytesOf(id)))
    const info = await library.TokenizerInfo.createTokenizerInfo(tokens, 'raw', false, vocab, [])
    // The library's own cache has no bound.
    return new MatcherThread(library, await library.GrammarCompiler.createGrammarCompiler(info, false))
  }

  async run(job: MatcherJob): Promise<MatcherAnswer> {
    if (job.type === 'check') {
      const grammar = await this.#library.Grammar.fromEBNF(job.grammar)
      grammar.dispose()
      return {}
    }
    if (job.type === 'open') {
      const compiled = await this.#compile(job.source)
      const matcher = await this.#library.GrammarMatcher.createGrammarMatcher(compiled, job.stopIds)
      const session = { matcher, mask: job.mask }
      this.#sessions.set(job.session, session)
      for (const token of job.tokens) accept(session, token)
      return fill(session)
    }
    const session = this.#sessions.get(job.session)
    if (!session) throw new Refused('the session is not open')
    if (job.type === 'accept') {
      accept(session, job.token)
      return fill(session)
    }
    this.#sessions.delete(job.session)
    session.matcher.dispose()
    return {}
  }

  async #compile({ kind, text }: GrammarSource): Promise<CompiledGrammar> {
    const key = `${kind} ${text}`
    let compiled = this.#compiled.get(key)
    this.#compiled.delete(key)
    const compiler = this.#compiler as GrammarCompiler
    compiled ??= kind === 'grammar' ? await compiler.compileGrammar(text) : await compiler.compileStructuralTag(text)
    this.#compiled.set(key, compiled)
    const [oldest] = this.#compiled
    if (this.#compiled.size > MAX_COMPILED && oldest) {
      this.#compiled.delete(oldest[0])
      oldest[1].dispose()
    }
    return compiled
  }
}

function accept({ matcher }: Session, token: number): void {
  if (!matcher.acceptToken(token)) throw new Refused(`token ${token} is not allowed`)
}

async function fill({ matcher, mask }: Session): Promise<MatcherAnswer> {
  if (matcher.isTerminated()) {
    mask.fill(0)
    return { allowed: 0 }
  }
  const bits = await matcher.getNextTokenBitmask()
  mask.set(bits)
  let allowed = 0
  for (let word of bits) for (; word !== 0; word &= word - 1) allowed++
  return { allowed }
}

const port = parentPort
if (port) {
  const data = workerData as MatcherData
  const thread = MatcherThread.start(data)
  const answer = (work: Promise<MatcherAnswer>) =>
    work.catch((error: unknown): MatcherAnswer => {
      const refused = error instanceof Refused
      return { failure: { reason: refused ? error.message : reasonOf(error), aborted: !refused } }
    })
  // The first answer says that it has started.
  let last = answer(thread.then(() => ({}))).then((started) => port.postMessage(started))
  port.on('message', (job: MatcherJob) => {
    last = last.then(async () => port.postMessage(await answer(thread.then((ready) => ready.run(job)))))
  })
}
