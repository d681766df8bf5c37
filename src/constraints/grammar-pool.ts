// Grammars that running requests are held to: sessions over threads that follow their texts. A grammar that is too costly fails its own request; the
// other sessions of its thread go on in a new one, from their tokens.
import { RequestError } from '../errors.js'
import type { GrammarSource, MatcherAnswer, MatcherData } from './matcher-messages.js'
import { MatcherThread } from './matcher-thread.js'

/** The second is started only when a grammar comes while one job of the first takes long: each has the vocabulary in memory. */
const MAX_THREADS = 2

export interface SessionListener {
  /** The mask of the next token is there. */
  onMask(): void
  /** Nothing may follow, and the model has no token that says so. */
  onComplete(): void
  onError(error: RequestError): void
}

/** One text under a grammar. */
export class GrammarSession {
  readonly source: GrammarSource
  readonly id: number
  /** One bit for each token of the vocabulary: it may come next. Valid while `ready`. */
  readonly mask: Int32Array
  readonly tokens: number[] = []
  readonly #pool: GrammarPool
  #listener: SessionListener | undefined
  #ready = false
  #allowed = 0
  #chosenFrom = 0
  #closed = false

  constructor(pool: GrammarPool, id: number, source: GrammarSource, vocab: number) {
    this.#pool = pool
    this.id = id
    this.source = source
    this.mask = new Int32Array(new SharedArrayBuffer(4 * Math.ceil(vocab / 32)))
  }

  get ready(): boolean {
    return this.#ready
  }

  /** How many tokens might have come instead of the newest one, itself among them. */
  get chosenFrom(): number {
    return this.#chosenFrom
  }

  start(listener: SessionListener): void {
    this.#listener = listener
    this.#pool.open(this)
  }

  /** The next token of the text; the mask is not valid until onMask. */
  accept(token: number): void {
    if (this.#closed) return
    this.#ready = false
    this.#chosenFrom = this.#allowed
    this.tokens.push(token)
    this.#pool.accept(this, token)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#pool.close(this)
  }

  /** An answer that counts this many tokens. */
  answered({ allowed, failure }: MatcherAnswer, tokens: number): void {
    if (this.#closed || (tokens !== this.tokens.length && !failure)) return
    if (failure) {
      this.close()
      this.#listener?.onError(failed(failure.reason))
      return
    }
    this.#ready = true
    this.#allowed = allowed ?? 0
    if (allowed === 0) this.#listener?.onComplete()
    else this.#listener?.onMask()
  }
}

interface Member {
  readonly thread: MatcherThread
  readonly sessions: Set<GrammarSession>
  /** Sources that it has seen. */
  readonly known: Set<string>
}

export class GrammarPool {
  readonly #data: MatcherData
  readonly #members = new Set<Member>()
  readonly #memberOf = new Map<GrammarSession, Member>()
  #ids = 0
  #closed = false

  /** stopIds: the tokens that end the model's texts. */
  constructor(dir: string, vocab: number, stopIds: readonly number[]) {
    this.#data = { dir, vocab, stopIds }
  }

  session(source: GrammarSource): GrammarSession {
    return new GrammarSession(this, this.#ids++, source, this.#data.vocab)
  }

  /** Called by sessions, as accept and close are. */
  open(session: GrammarSession): void {
    if (this.#closed) return
    const key = keyOf(session)
    const member = this.#choose(key)
    member.known.add(key)
    member.sessions.add(session)
    this.#memberOf.set(session, member)
    const { id, source, mask } = session
    const tokens = [...session.tokens]
    member.thread.run({ type: 'open', session: id, source, tokens, mask }, (answer) => session.answered(answer, tokens.length))
  }

  accept(session: GrammarSession, token: number): void {
    const count = session.tokens.length
    this.#memberOf.get(session)?.thread.run({ type: 'accept', session: session.id, token }, (answer) => session.answered(answer, count))
  }

  close(session: GrammarSession): void {
    const member = this.#memberOf.get(session)
    this.#memberOf.delete(session)
    member?.sessions.delete(session)
    member?.thread.run({ type: 'close', session: session.id }, () => {})
  }

  async end(): Promise<void> {
    this.#closed = true
    const members = [...this.#members]
    this.#members.clear()
    await Promise.all(members.map(({ thread }) => thread.close()))
  }

  #choose(key: string): Member {
    const members = [...this.#members]
    const found = members.find(({ thread, known }) => known.has(key) && !thread.stuck) ?? members.find(({ thread }) => !thread.stuck)
    if (found) return found
    if (members.length < MAX_THREADS) return this.#add()
    return members.reduce((a, b) => (b.thread.load < a.thread.load ? b : a))
  }

  #add(): Member {
    const member: Member = {
      thread: new MatcherThread(this.#data, (failure) => this.#replace(member, failure)),
      sessions: new Set(),
      known: new Set(),
    }
    this.#members.add(member)
    return member
  }

  /** Its thread has ended: its sessions continue elsewhere. */
  #replace(member: Member, startFailure: string | undefined): void {
    this.#members.delete(member)
    for (const session of [...member.sessions]) {
      if (startFailure === undefined) this.open(session)
      else session.answered({ failure: { reason: startFailure, aborted: true } }, 0)
    }
  }
}

function keyOf({ source: { kind, text } }: GrammarSession): string {
  return `${kind} ${text}`
}

/** A grammar that cannot be kept. */
export function failed(reason: string): RequestError {
  return new RequestError('CONSTRAINT_FAILED', {
    what: 'the output cannot be held to this schema or grammar',
    expected: 'one that can be compiled and matched within the limits',
    actual: reason,
    remedy: 'Correct it, or make it simpler.',
  })
}
