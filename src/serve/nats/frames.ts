// A stream of numbered frames over messages that may be lost, come twice or in another order: the sender keeps what was not acknowledged
// and sends it again, and sends no more than it has credit for; the receiver gives each frame once and in order.
import type { Control, Frame } from './messages.js'

/** Frames that may be under way, and that the sender keeps at most. */
export const WINDOW = 64
/** A frame that was sent longer ago and has not come is sent again. */
const RESEND_MS = 1000

interface Sent {
  readonly seq: number
  readonly bytes: Uint8Array
  at: number
}

export class FrameSender {
  readonly #send: (bytes: Uint8Array) => void
  readonly #now: () => number
  #kept: Sent[] = []
  #next = 1
  #received = 0
  #credit = WINDOW
  #closed = false
  #wake: (() => void) | undefined

  constructor(send: (bytes: Uint8Array) => void, now: () => number = () => performance.now()) {
    this.#send = send
    this.#now = now
  }

  /** Whether the receiver has all that was given. */
  get settled(): boolean {
    return this.#kept.length === 0
  }

  /** Sends a frame once there is credit for it. false: the stream was closed. */
  async give(frame: (seq: number) => Uint8Array): Promise<boolean> {
    while (this.#next > this.#credit && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    if (this.#closed) return false
    const seq = this.#next++
    const bytes = frame(seq)
    this.#kept.push({ seq, bytes, at: this.#now() })
    this.#send(bytes)
    return true
  }

  /** What the receiver says. Numbers that can't be are of no effect. */
  control(received: number, credit: number): void {
    if (received >= this.#next || credit > received + WINDOW) return
    if (received > this.#received) this.#received = received
    if (credit > this.#credit) this.#credit = credit
    this.#kept = this.#kept.filter(({ seq }) => seq > this.#received)
    const now = this.#now()
    for (const sent of this.#kept) {
      if (now - sent.at < RESEND_MS) continue
      sent.at = now
      this.#send(sent.bytes)
    }
    this.#wake?.()
  }

  close(): void {
    this.#closed = true
    this.#kept = []
    this.#wake?.()
  }
}

export class FrameReceiver {
  readonly #ahead = new Map<number, Frame>()
  #received = 0
  #credit = WINDOW

  /** The last frame before which none is missing. */
  get received(): number {
    return this.#received
  }

  /** What to tell the sender. paused: it gets no more credit than it has. */
  report(paused: boolean): readonly [received: number, credit: number] {
    if (!paused) this.#credit = this.#received + WINDOW
    return [this.#received, this.#credit]
  }

  /** The frames that are in order now. */
  *take(frame: Frame): Generator<Frame, void, undefined> {
    const { seq } = frame
    if (seq <= this.#received || seq > this.#received + WINDOW) return
    this.#ahead.set(seq, frame)
    for (;;) {
      const next = this.#ahead.get(this.#received + 1)
      if (!next) return
      this.#received++
      this.#ahead.delete(this.#received)
      yield next
    }
  }
}

/** One entry of a control message. */
export type ControlEntry = Control['requests'][number]
