// The thread that follows texts under grammars. Strangers' grammars run here: what takes too long is ended.
import { parentPort, workerData } from 'node:worker_threads'
import { loadTokenizer } from '../tokenizer/tokenizer.js'
import { type FollowedText, GrammarMatcher } from './grammar-matcher.js'
import type { GrammarSource, MatcherAnswer, MatcherData, MatcherJob } from './matcher-messages.js'
import { TokenTrie } from './token-trie.js'
import { Refused } from './unsupported.js'

/** Grammars that are kept; the least recently used goes first. */
const MAX_GRAMMARS = 32
/** Bytes of masks that are kept, of all grammars together. */
const MAX_MASK_BYTES = 64 << 20
/** Milliseconds after which answers are sent, though jobs of the same message are left. */
const ANSWER_MS = 0.5

interface Session {
  readonly matcher: GrammarMatcher
  readonly text: FollowedText
  readonly mask: Int32Array
}

class MatcherThread {
  readonly #trie: TokenTrie
  readonly #bytes: (id: number) => Uint8Array
  readonly #stopIds: readonly number[]
  readonly #grammars = new Map<string, GrammarMatcher>()
  readonly #sessions = new Map<number, Session>()

  private constructor(trie: TokenTrie, bytes: (id: number) => Uint8Array, stopIds: readonly number[]) {
    this.#trie = trie
    this.#bytes = bytes
    this.#stopIds = stopIds
  }

  static async start({ dir, vocab, stopIds }: MatcherData): Promise<MatcherThread> {
    const tokenizer = await loadTokenizer(dir, vocab)
    if (!tokenizer) throw new Error('the model has no tokenizer')
    const bytesOf = (id: number) => tokenizer.bytesOf(id)
    return new MatcherThread(new TokenTrie(vocab, bytesOf, new Set(stopIds)), bytesOf, stopIds)
  }

  run(job: MatcherJob): MatcherAnswer {
    if (job.type === 'open') {
      const matcher = this.#matcher(job.source)
      const session = { matcher, text: matcher.follow(job.tokens), mask: job.mask }
      this.#sessions.set(job.session, session)
      return this.#fill(session)
    }
    if (job.type === 'close') {
      this.#sessions.delete(job.session)
      return {}
    }
    const session = this.#sessions.get(job.session)
    if (!session) throw new Refused('the text is not followed')
    session.matcher.accept(session.text, job.token)
    return this.#fill(session)
  }

  #matcher(source: GrammarSource): GrammarMatcher {
    const key = `${source.kind} ${source.text}`
    const matcher = this.#grammars.get(key) ?? new GrammarMatcher(source, this.#trie, this.#bytes)
    this.#grammars.delete(key)
    this.#grammars.set(key, matcher)
    const [oldest] = this.#grammars.keys()
    if (this.#grammars.size > MAX_GRAMMARS && oldest !== undefined) this.#grammars.delete(oldest)
    return matcher
  }

  #fill({ matcher, text, mask }: Session): MatcherAnswer {
    const { bits, allowed, mayEnd } = matcher.next(text)
    mask.set(bits)
    if (mayEnd) for (const id of this.#stopIds) mask[id >> 5] = (mask[id >> 5] as number) | (1 << (id & 31))
    this.#bound()
    return { allowed: allowed + (mayEnd ? this.#stopIds.length : 0) }
  }

  #bound(): void {
    const matchers = [...this.#grammars.values()]
    if (matchers.reduce((sum, { maskBytes }) => sum + maskBytes, 0) <= MAX_MASK_BYTES) return
    for (const matcher of matchers) matcher.forgetMasks()
  }
}

const port = parentPort
if (port) {
  const thread = MatcherThread.start(workerData as MatcherData)
  const failure = (error: unknown): MatcherAnswer => ({
    failure: { reason: error instanceof Error ? error.message : String(error), aborted: !(error instanceof Refused) },
  })
  const runAll = (ready: MatcherThread, jobs: readonly MatcherJob[]) => {
    let answers: MatcherAnswer[] = []
    let since = performance.now()
    for (const job of jobs) {
      try {
        answers.push(ready.run(job))
      } catch (error) {
        answers.push(failure(error))
      }
      if (performance.now() - since < ANSWER_MS) continue
      port.postMessage(answers)
      answers = []
      since = performance.now()
    }
    if (answers.length > 0) port.postMessage(answers)
  }
  // The first answer says that it has started.
  thread.then(
    () => port.postMessage([{}]),
    (error: unknown) => port.postMessage([failure(error)]),
  )
  port.on('message', (jobs: readonly MatcherJob[]) => void thread.then((ready) => runAll(ready, jobs)).catch(() => {}))
}
