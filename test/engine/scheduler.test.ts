import test from 'ava'
import fc from 'fast-check'
import { NgramDrafts } from '../../src/engine/scheduling/ngram-drafts.js'
import { PageAllocator } from '../../src/engine/scheduling/page-allocator.js'
import type { PageCopy } from '../../src/engine/scheduling/prefix-cache.js'
import { PRIORITY_STEP } from '../../src/engine/scheduling/priority.js'
import { fixedPace } from '../../src/engine/scheduling/prompt-pace.js'
import { Scheduler, type StepRow } from '../../src/engine/scheduling/scheduler.js'
import { Sequence, type SequenceSink } from '../../src/engine/scheduling/sequence.js'
import type { StepOutcome } from '../../src/engine/scheduling/step-outcome.js'
import { LAST_SAMPLED, MASK_MISSED, ROW_FLAGS } from '../../workers/mailbox/mailbox-layout.js'
import { PAGE_TOKENS } from '../../workers/protocol.js'
import { inFull } from '../support/tier.js'

const sink: SequenceSink = { onAdmitted() {}, onToken() {}, onLogits() {}, onLogprobs() {}, onScore() {}, onFinish() {}, onError() {} }

function sequence(prompt: number | number[], maxTokens: number, priority = 0, drafts?: NgramDrafts): Sequence {
  const tokens = typeof prompt === 'number' ? Array.from({ length: prompt }, (_, i) => i) : prompt
  return new Sequence({ prompt: tokens, maxTokens, temperature: 0, seed: 0, endOfText: new Set(), everyLogits: false, drafts, priority, sink })
}

function setup(pages = 4, prefillChunk = 8, slots = 2, classes = 1) {
  const allocator = new PageAllocator(pages, classes)
  return {
    allocator,
    scheduler: new Scheduler({ pace: fixedPace(prefillChunk), slots, contextTokens: Math.min(1024, pages * PAGE_TOKENS) }, allocator),
  }
}

/** A token that depends on everything before it, so that a wrong order or a wrong page shows. */
function nextToken(tokens: readonly number[]): number {
  return tokens.reduce(hashToken, 1) % 3
}

function hashToken(hash: number, token: number): number {
  return (Math.imul(hash, 31) + token + 7) >>> 0
}

/** Results of a step whose rows sample these tokens. */
function outcome(sampled: (t: number) => number): StepOutcome {
  return { sampled, score: () => -1, logprobs: () => ({ logprob: -1, top: [] }), logits: () => new Float32Array() }
}

/** Commits a step: what a row samples follows from the tokens of its sequence at that moment. */
function complete(scheduler: Scheduler, rows: readonly StepRow[]): void {
  scheduler.commit(
    rows,
    outcome((t) => nextToken((rows[t] as StepRow).sequence.tokens)),
  )
}

/** The tokens up to a cached row: what a rank that computed the row has read. The same tokens are the same object. */
class Past {
  readonly parent: Past | undefined
  readonly token: number
  readonly hash: number
  readonly #next = new Map<number, Past>()

  constructor(parent?: Past, token = -1) {
    this.parent = parent
    this.token = token
    this.hash = parent ? hashToken(parent.hash, token) : 1
  }

  with(token: number): Past {
    const past = this.#next.get(token) ?? new Past(this, token)
    this.#next.set(token, past)
    return past
  }
}

/** Ranks with a cache of pages, as the real ones: a row reads the rows before it and writes its own; nothing but rows reaches them. */
class FakeRanks {
  readonly #cache: (Past | undefined)[][]
  readonly #lastSampled = new Map<number, number>()
  readonly #start = new Past()

  constructor(pages: number) {
    this.#cache = Array.from({ length: pages }, () => Array.from({ length: PAGE_TOKENS }))
  }

  /** Throws Error for a row that would read another past than its own. */
  run(rows: readonly StepRow[], copies: readonly PageCopy[]): StepOutcome {
    for (const { from, to, rows: n } of copies) this.#page(to).splice(0, n, ...this.#page(from).slice(0, n))
    const sampled = rows.map(({ sequence, position, token, flags }) => {
      const own = token === LAST_SAMPLED ? (this.#lastSampled.get(sequence.slot) as number) : token
      const parent = position === 0 ? this.#start : this.at(sequence, position - 1)
      if (!parent) throw new Error(`position ${position} would read nothing at ${position - 1}`)
      for (let p = position - 1, past: Past | undefined = parent; p >= 0; p--, past = past?.parent) {
        if (this.at(sequence, p) !== past) throw new Error(`position ${position} would read another past at ${p}`)
      }
      const past = parent.with(own)
      this.#page(sequence.pages[Math.floor(position / PAGE_TOKENS)] as number)[position % PAGE_TOKENS] = past
      if ((flags & ROW_FLAGS.sample) !== 0) this.#lastSampled.set(sequence.slot, past.hash % 3)
      return past.hash % 3
    })
    return outcome((t) => sampled[t] as number)
  }

  at({ pages }: Sequence, position: number): Past | undefined {
    return this.#page(pages[Math.floor(position / PAGE_TOKENS)] as number)[position % PAGE_TOKENS]
  }

  #page(page: number): (Past | undefined)[] {
    return this.#cache[page] as (Past | undefined)[]
  }
}

function drain(scheduler: Scheduler, maxSteps: number): number {
  let steps = 0
  for (; !scheduler.idle && steps < maxSteps; steps++) complete(scheduler, scheduler.next())
  return steps
}

test('a prompt is cut into chunks; its last row samples; then one step ahead and no more', (t) => {
  const { scheduler } = setup()
  scheduler.add(sequence(11, 5))
  t.deepEqual(
    scheduler.next().map((r) => [r.position, r.flags]),
    [0, 1, 2, 3, 4, 5, 6, 7].map((p) => [p, 0]),
  )
  t.deepEqual(
    scheduler.next().map((r) => [r.position, r.flags]),
    [
      [8, 0],
      [9, 0],
      [10, ROW_FLAGS.sample],
    ],
  )
  t.deepEqual(
    scheduler.next().map((r) => [r.position, r.token]),
    [[11, LAST_SAMPLED]],
  )
  t.deepEqual(scheduler.next(), [])
})

test('run-ahead stops at maxTokens: no row beyond the last token wanted', (t) => {
  const { scheduler, allocator } = setup()
  const s = sequence(3, 2)
  scheduler.add(s)
  const prefill = scheduler.next()
  const ahead = scheduler.next()
  t.is(ahead.length, 1)
  t.deepEqual(scheduler.next(), [])
  complete(scheduler, prefill)
  t.deepEqual(scheduler.next(), [])
  complete(scheduler, ahead)
  t.is(s.generated, 2)
  t.true(s.ended && scheduler.idle)
  t.is(allocator.freePages, 4)
})

test('pages of an ended sequence return when its last step in flight has completed', (t) => {
  const { scheduler, allocator } = setup()
  const s = sequence(3, 100)
  scheduler.add(s)
  const first = scheduler.next()
  const second = scheduler.next()
  scheduler.end(s)
  t.is(allocator.freePages, 3)
  complete(scheduler, first)
  t.is(allocator.freePages, 3)
  complete(scheduler, second)
  t.is(allocator.freePages, 4)
  t.true(scheduler.idle)
})

test('decoding goes on beside a long prompt: each step has one row of it and a chunk of the other', (t) => {
  const { scheduler } = setup(8, 8, 2)
  const [a, b] = [sequence(2, 50), sequence(40, 5)]
  scheduler.add(a)
  complete(scheduler, scheduler.next())
  scheduler.add(b)
  for (let i = 0; i < 4; i++) {
    const rows = scheduler.next()
    t.is(rows.filter((r) => r.sequence === a).length, 1)
    t.is(rows.filter((r) => r.sequence === b).length, 8)
    complete(scheduler, rows)
  }
})

test('sequences beyond the slots wait in order; an ended one that waited is forgotten', (t) => {
  const { scheduler } = setup(4, 8, 1)
  const [a, b, c] = [sequence(2, 1), sequence(2, 1), sequence(2, 1)]
  for (const s of [a, b, c]) scheduler.add(s)
  const rows = scheduler.next()
  t.true(rows.every((r) => r.sequence === a))
  scheduler.end(b)
  complete(scheduler, rows)
  t.true(scheduler.next().every((r) => r.sequence === c))
})

test('a request of the highest priority overtakes 640 earlier ones and no more: nobody starves', (t) => {
  const { scheduler } = setup(4, 8, 1)
  const ordinary = Array.from({ length: 700 }, () => sequence([1], 1))
  for (const s of ordinary) scheduler.add(s)
  const urgent = sequence([2], 1, 10)
  scheduler.add(urgent)
  let before = 0
  while (!urgent.ended) {
    complete(scheduler, scheduler.next())
    before = ordinary.filter((s) => s.ended).length
  }
  t.true(before >= 700 - 10 * PRIORITY_STEP - 1 && before <= 700 - 10 * PRIORITY_STEP + 1, `${before} were served before it`)
})

test('when pages run out the newest gives way, and ends with the tokens it would have had', (t) => {
  const { scheduler, allocator } = setup(4, 64, 4)
  const all = [1, 2, 3].map((first) => sequence([first, ...Array.from({ length: 60 }, (_, i) => i % 5)], 120))
  for (const s of all) scheduler.add(s)
  drain(scheduler, 5000)
  t.true(scheduler.idle && scheduler.preemptions > 0)
  for (const s of all) {
    const alone = s.tokens.slice(0, s.promptLength)
    while (alone.length < s.tokens.length) alone.push(nextToken(alone))
    t.deepEqual(s.tokens, alone)
    t.is(s.generated, 120)
  }
  t.is(allocator.freePages, 4)
})

test('a prefix is found again: full pages are shared, rows of the next one copied, and at least one token is left to compute', (t) => {
  const { scheduler, allocator } = setup(8, 64, 3)
  const prompt = Array.from({ length: 2 * PAGE_TOKENS }, (_, i) => i)
  const first = sequence(prompt, 1)
  scheduler.add(first)
  drain(scheduler, 100)
  t.is(allocator.cachedPages, 2)
  const second = sequence(prompt, 1)
  scheduler.add(second)
  const rows = scheduler.next()
  t.is(second.cachedTokens, 2 * PAGE_TOKENS - 1)
  t.is(rows[0]?.position, 2 * PAGE_TOKENS - 1)
  t.is(second.pages[0], 0)
  t.deepEqual(scheduler.takeCopies(), [{ sequence: second, from: 1, to: second.pages[1], rows: PAGE_TOKENS - 1 }])
  t.deepEqual(scheduler.takeCopies(), [])
  complete(scheduler, rows)
  const longer = sequence([...prompt, 5, 6], 1)
  scheduler.add(longer)
  t.is(scheduler.next()[0]?.position, 2 * PAGE_TOKENS)
  const other = sequence([9, ...prompt], 1)
  scheduler.add(other)
  scheduler.next()
  t.is(other.cachedTokens, 0)
})

test('rows that were copied in a step that never completes are computed', (t) => {
  const { scheduler } = setup(8, 64, 3)
  const prompt = Array.from({ length: 40 }, (_, i) => i)
  scheduler.add(sequence(prompt, 1))
  drain(scheduler, 100)
  const second = sequence([...prompt.slice(0, 30), 77, 78], 1)
  scheduler.add(second)
  t.is(scheduler.next()[0]?.position, 30)
  t.is(scheduler.takeCopies().length, 1)
  scheduler.rollBack(second)
  t.is(scheduler.next()[0]?.position, 0)
  t.is(scheduler.takeCopies().length, 0)
})

test('a sequence that scores keeps the rows that it is asked about, and ends with its last one', (t) => {
  const { scheduler } = setup(8, 64, 3)
  const tokens = Array.from({ length: 40 }, (_, i) => i)
  const scoring = (from: number) =>
    new Sequence({
      prompt: tokens.slice(0, -1),
      maxTokens: 0,
      temperature: 0,
      seed: 0,
      endOfText: new Set(),
      everyLogits: false,
      score: { from, next: 39 },
      priority: 0,
      sink,
    })
  const first = scoring(30)
  scheduler.add(first)
  const rows = scheduler.next()
  t.deepEqual(
    rows.map((r) => r.flags),
    Array.from({ length: 39 }, (_, p) => (p >= 29 ? ROW_FLAGS.score : 0)),
  )
  t.deepEqual(
    rows.map((r) => first.target(r.position)),
    tokens.slice(1),
  )
  complete(scheduler, rows)
  t.true(first.ended)
  const second = scoring(30)
  scheduler.add(second)
  t.is(scheduler.next()[0]?.position, 29)
})

type Command =
  | {
      readonly kind: 'add'
      readonly prefix: number
      readonly length: number
      readonly maxTokens: number
      readonly priority: number
      readonly ngram: number
    }
  | { readonly kind: 'publish' | 'complete' | 'restart' }
  | { readonly kind: 'end' | 'pause' | 'resume'; readonly which: number }

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      prefix: fc.nat({ max: 2 }),
      length: fc.integer({ min: 1, max: 200 }),
      maxTokens: fc.integer({ min: 1, max: 90 }),
      priority: fc.nat({ max: 2 }),
      // 0: no speculation.
      ngram: fc.nat({ max: 3 }),
    }),
  },
  { weight: 8, arbitrary: fc.record({ kind: fc.constantFrom('publish' as const, 'complete' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('end' as const, 'pause' as const, 'resume' as const), which: fc.nat({ max: 30 }) }) },
)

test('drafts are what followed the last n tokens when they last occurred', (t) => {
  const drafts = new NgramDrafts({ ngram: 2, maxTokens: 3 })
  const tokens = [1, 2, 3, 4, 1, 2]
  t.deepEqual(drafts.propose(tokens, 10), [3, 4, 1])
  tokens.push(9, 1, 2)
  t.deepEqual(drafts.propose(tokens, 10), [9, 1, 2])
  t.deepEqual(drafts.propose(tokens, 1), [9])
  t.deepEqual(drafts.propose(tokens, 0), [])
  tokens.push(7)
  t.deepEqual(drafts.propose(tokens, 10), [])
  t.deepEqual(new NgramDrafts({ ngram: 4, maxTokens: 3 }).propose([1, 2, 3], 10), [])
})

test('a step has rows for drafts; those that are wrong count for nothing, and nothing runs ahead', (t) => {
  const { scheduler } = setup(8, 8, 2)
  const drafts = new NgramDrafts({ ngram: 1, maxTokens: 4 })
  const s = sequence([5, 6, 7], 20, 0, drafts)
  scheduler.add(s)
  const prompt = scheduler.next()
  t.deepEqual(scheduler.next(), [])
  scheduler.commit(
    prompt,
    outcome(() => 5),
  )
  const rows = scheduler.next()
  t.deepEqual(
    rows.map((r) => [r.position, r.token]),
    [
      [3, 5],
      [4, 6],
      [5, 7],
      [6, 5],
    ],
  )
  t.deepEqual(scheduler.next(), [])
  // 6 comes, as the first draft said; then 9, which makes the next draft wrong.
  scheduler.commit(
    rows,
    outcome((t) => [6, 9, 1, 1][t] as number),
  )
  t.deepEqual(s.tokens, [5, 6, 7, 5, 6, 9])
  t.deepEqual([drafts.drafted, drafts.accepted], [3, 1])
  t.deepEqual([s.computed, s.scheduled, s.pendingSamples], [5, 5, 0])
  t.is(scheduler.next()[0]?.position, 5)
})

test('any order of arrivals, steps, aborts, pauses and restarts: every row finds its own past in its pages, no page leaks, all ends', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(
        fc.array(command, { minLength: 5, maxLength: 120 }),
        fc.integer({ min: 5, max: 12 }),
        fc.integer({ min: 1, max: 5 }),
        fc.constantFrom(1, 7, 64),
        fc.constantFrom(1, 4),
        (commands, least, slots, chunk, classes) => {
          const pages = Math.ceil(least / classes) * classes
          const { allocator, scheduler } = setup(pages, chunk, slots, classes)
          const all: Sequence[] = []
          const published: { readonly rows: StepRow[]; readonly copies: PageCopy[] }[] = []
          const publish = () => ({ rows: scheduler.next(), copies: scheduler.takeCopies() })
          const ranks = new FakeRanks(pages)
          const run = ({ rows, copies }: { readonly rows: StepRow[]; readonly copies: PageCopy[] }) => {
            scheduler.commit(rows, ranks.run(rows, copies))
            for (const s of new Set(rows.map((row) => row.sequence))) {
              if (s.computed === 0) continue
              for (let p = s.computed - 1, past = ranks.at(s, p); p >= 0; p--, past = past?.parent) {
                if (past?.token !== s.tokens[p]) throw new Error(`position ${p} counts as computed and holds ${past?.token}, not ${s.tokens[p]}`)
              }
            }
          }
          const check = () => {
            const held = new Set(all.flatMap((s) => s.pages))
            if (held.size + allocator.freePages !== pages) throw new Error(`${held.size} pages held, ${allocator.freePages} free, ${pages} in all`)
            if (all.some((s) => s.pages.some((page, i) => page % classes !== i % classes))) throw new Error('a page of another class')
            const running = all.filter((s) => s.slot >= 0)
            if (new Set(running.map((s) => s.slot)).size !== running.length || running.length > slots) throw new Error('two sequences in one slot')
          }
          for (const c of commands) {
            if (c.kind === 'add') {
              const length = Math.min(c.length, pages * PAGE_TOKENS - 1)
              const s = sequence(
                // Prefixes that part within a page as well as between pages.
                Array.from({ length }, (_, i) => (i < 130 - 17 * (all.length % 4) ? c.prefix : all.length + i)),
                c.maxTokens,
                c.priority,
                c.ngram > 0 ? new NgramDrafts({ ngram: c.ngram, maxTokens: 5 }) : undefined,
              )
              all.push(s)
              scheduler.add(s)
            } else if (c.kind === 'publish') {
              if (published.length < 2) published.push(publish())
            } else if (c.kind === 'complete') {
              const step = published.shift()
              if (step) run(step)
            } else if (c.kind === 'restart') {
              for (const s of new Set(published.flatMap(({ rows, copies }) => [...rows, ...copies]).map((each) => each.sequence)))
                scheduler.rollBack(s)
              published.length = 0
            } else if ('which' in c) {
              const s = all[c.which]
              if (!s || s.ended) continue
              if (c.kind === 'end') scheduler.end(s)
              else s.paused = c.kind === 'pause'
            }
            check()
          }
          const aborted = new Set(all.filter((s) => s.ended && s.generated < s.maxTokens))
          for (const s of all) s.paused = false
          for (let steps = 0; !scheduler.idle; steps++) {
            run(published.shift() ?? publish())
            check()
            if (steps > 60_000) throw new Error('it does not come to an end')
          }
          for (const s of all) {
            const alone = s.tokens.slice(0, s.promptLength)
            while (alone.length < s.tokens.length) alone.push(nextToken(alone))
            if (alone.join() !== s.tokens.join()) throw new Error('other tokens than alone')
            const most = Math.min(s.maxTokens, pages * PAGE_TOKENS - s.promptLength)
            if (!aborted.has(s) && s.generated !== most) throw new Error(`${s.generated} tokens of ${most}`)
          }
          if (allocator.freePages !== pages) throw new Error('pages leaked')
        },
      ),
      { numRuns: Number(process.env.SCHEDULER_RUNS ?? (inFull ? 300 : 60)), ...(process.env.SCHEDULER_RUNS ? {} : { seed: 20261124 }) },
    ),
  )
})

test('a row whose mask was missed is run again once nothing is in flight and the mask is there; the row ahead of it is dropped', (t) => {
  const { scheduler } = setup()
  const seen: number[] = []
  const accepted: number[] = []
  const constraint = { ready: true, mask: new Int32Array(1), accept: (token: number) => accepted.push(token) }
  const held = new Sequence({
    ...{ prompt: [1, 2], maxTokens: 3, temperature: 0, seed: 0, endOfText: new Set<number>(), everyLogits: false, priority: 0, constraint },
    sink: { ...sink, onToken: (token) => seen.push(token) },
  })
  scheduler.add(held)
  const first = scheduler.next()
  const ahead = scheduler.next()
  t.deepEqual([ahead.length, ahead[0]?.token], [1, LAST_SAMPLED])
  constraint.ready = false
  scheduler.commit(
    first,
    outcome(() => MASK_MISSED),
  )
  t.deepEqual([seen, scheduler.next()], [[], []])
  scheduler.commit(
    ahead,
    outcome(() => 9),
  )
  t.deepEqual([seen, scheduler.next()], [[], []], 'its mask is not there')
  constraint.ready = true
  const again = scheduler.next()
  t.deepEqual(
    again.map(({ position, token }) => [position, token]),
    [[1, 2]],
  )
  scheduler.commit(
    again,
    outcome(() => 7),
  )
  t.deepEqual([seen, accepted], [[7], [7]])
})
