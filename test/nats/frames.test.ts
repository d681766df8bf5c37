// Numbered frames over a channel that loses, doubles and reorders, with time that the test turns.
import test from 'ava'
import fc from 'fast-check'
import { FrameReceiver, FrameSender, WINDOW } from '../../src/serve/nats/frames.js'
import type { Frame } from '../../src/serve/nats/messages.js'

/** A channel's seed, and how often (of 10) a message is lost, comes twice, or late. */
const channels = fc.record({ seed: fc.integer({ min: 1, max: 2 ** 31 - 2 }), lost: fc.nat(6), twice: fc.nat(2), late: fc.nat(2) })

const frame = (seq: number): Frame => ({ seq, type: 'chunk', chunk: { index: 0, text: String(seq), tokens: [seq] } })

class Channel<T> {
  readonly #odds: { readonly lost: number; readonly twice: number; readonly late: number }
  readonly #deliver: (message: T) => void
  #late: T[] = []
  #state: number

  constructor({ seed, ...odds }: { seed: number; lost: number; twice: number; late: number }, deliver: (message: T) => void) {
    this.#state = seed
    this.#odds = odds
    this.#deliver = deliver
  }

  send(message: T): void {
    const { lost, twice, late } = this.#odds
    // Lehmer's generator.
    this.#state = (this.#state * 48271) % 2147483647
    const fate = this.#state % 10
    if (fate < lost) return
    if (fate < lost + late) this.#late.push(message)
    else this.#deliver(message)
    if (fate >= lost + late && fate < lost + late + twice) this.#deliver(message)
  }

  flush(): void {
    const late = this.#late.reverse()
    this.#late = []
    for (const message of late) this.#deliver(message)
  }
}

test('every frame arrives once and in order, and the sender keeps no more than a window, whatever is lost', async (t) => {
  await fc.assert(
    fc.asyncProperty(channels, channels, fc.integer({ min: 1, max: 300 }), async (there, back, frames) => {
      let now = 0
      const got: number[] = []
      const receiver = new FrameReceiver()
      const data = new Channel<Uint8Array>(there, (bytes) => {
        for (const { seq } of receiver.take(frame(Number(Buffer.from(bytes).toString())))) got.push(seq)
      })
      const sender = new FrameSender(
        (bytes) => data.send(bytes),
        () => now,
      )
      const control = new Channel<readonly [number, number]>(back, ([received, credit]) => sender.control(received, credit))
      let given = 0
      const giving = (async () => {
        for (let i = 0; i < frames; i++) {
          if (!(await sender.give((seq) => Buffer.from(String(seq))))) return
          given++
        }
      })()
      for (let turn = 0; turn < 3000 && !(given === frames && sender.settled); turn++) {
        now += 600
        data.flush()
        control.flush()
        control.send(receiver.report(false))
        // Lets the giver go on.
        await new Promise((done) => setImmediate(done))
        if (given > receiver.received + WINDOW) throw new Error(`${given} given, ${receiver.received} received`)
      }
      sender.close()
      await giving
      t.deepEqual(
        got,
        Array.from({ length: frames }, (_, i) => i + 1),
      )
    }),
    { numRuns: 60, seed: 20261126 },
  )
})

test('a paused receiver gives no credit, and a resumed one does', async (t) => {
  const sent: number[] = []
  const sender = new FrameSender(
    (bytes) => sent.push(bytes[0] as number),
    () => 0,
  )
  const receiver = new FrameReceiver()
  const give = () => sender.give((seq) => Uint8Array.of(seq))
  for (let i = 0; i < WINDOW; i++) t.true(await give())
  const waiting = give()
  for (const seq of sent) for (const _ of receiver.take(frame(seq)));
  const before = receiver.report(true)
  t.deepEqual(before, [WINDOW, WINDOW])
  sender.control(...before)
  // A giver that had credit would go on in this turn of the event loop.
  await new Promise((done) => setImmediate(done))
  t.is(sent.length, WINDOW)
  t.true(sender.settled)
  sender.control(...receiver.report(false))
  t.true(await waiting)
  t.is(sent.length, WINDOW + 1)
})

test('impossible acknowledgements are ignored; a closed stream takes no frames and releases a waiting sender', async (t) => {
  const sent: number[] = []
  const sender = new FrameSender(
    (bytes) => sent.push(bytes[0] as number),
    () => 0,
  )
  const give = () => sender.give((seq) => Uint8Array.of(seq))
  await give()
  sender.control(99, 200)
  sender.control(0, 1_000_000)
  t.false(sender.settled)
  for (let i = 1; i < WINDOW; i++) await give()
  const waiting = give()
  sender.close()
  t.false(await waiting)
  t.false(await give())
  t.is(sent.length, WINDOW)
  const receiver = new FrameReceiver()
  t.deepEqual([...receiver.take(frame(WINDOW + 1))], [], 'nobody may send that yet')
  t.deepEqual([...receiver.take(frame(0))], [])
})
