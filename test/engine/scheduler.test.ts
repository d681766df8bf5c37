import test from 'ava'
import { BlockManager } from '../../src/engine/block-manager.js'
import { Scheduler, type StepRow } from '../../src/engine/scheduler.js'
import { Sequence, type SequenceSink } from '../../src/engine/sequence.js'
import { LAST_SAMPLED, ROW_FLAGS } from '../../workers/layout.js'

const sink: SequenceSink = { onScheduled() {}, onToken() {}, onLogits() {}, onFinish() {}, onError() {} }

function sequence(promptLength: number, maxTokens: number): Sequence {
  return new Sequence({
    prompt: Array.from({ length: promptLength }, (_, i) => i),
    maxTokens,
    temperature: 0,
    seed: 0,
    endOfText: new Set(),
    everyLogits: false,
    sink,
  })
}

function setup(pages = 4, stepRows = 8, slots = 2) {
  const blocks = new BlockManager(pages)
  return { blocks, scheduler: new Scheduler({ stepRows, slots, contextTokens: 1024 }, blocks) }
}

/** What the coordinator does with a completed step whose samples are all 7. */
function complete(scheduler: Scheduler, rows: StepRow[]): void {
  for (const { sequence, flags } of rows) {
    if (sequence.ended || (flags & ROW_FLAGS.sample) === 0) continue
    sequence.pendingSamples--
    sequence.tokens.push(7)
    if (scheduler.finishReason(sequence)) scheduler.end(sequence)
  }
  for (const sequence of new Set(rows.map((r) => r.sequence))) scheduler.completed(sequence)
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
  const { scheduler, blocks } = setup()
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
  t.is(blocks.freePages, 4)
})

test('pages of an ended sequence return when its last step in flight has completed', (t) => {
  const { scheduler, blocks } = setup()
  const s = sequence(3, 100)
  scheduler.add(s)
  const first = scheduler.next()
  const second = scheduler.next()
  scheduler.end(s)
  t.is(blocks.freePages, 3)
  complete(scheduler, first)
  t.is(blocks.freePages, 3)
  complete(scheduler, second)
  t.is(blocks.freePages, 4)
  t.true(scheduler.idle)
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

test('a sequence takes a page for every 64 tokens and waits when there is none', (t) => {
  const { scheduler, blocks } = setup(1, 100)
  scheduler.add(sequence(70, 1))
  t.is(scheduler.next().length, 64)
  t.is(blocks.freePages, 0)
  t.deepEqual(scheduler.next(), [])
})
