// A stream of numbered frames over messages that may be lost, duplicated or reordered. The sender keeps each frame until it is acknowledged,
// sends it again, and never sends more than it has credit for; the receiver yields each frame once and in order.
import type { Control, Frame } from './messages.js'

/** Maximum number of unacknowledged frames. */
export const WINDOW = 64
/** An unacknowledged frame is sent again after this time, milliseconds. */
const RESEND_MS = 1000

interface SentFrame {
  readonly seq: number
  readonly bytes: Uint8Array
  sentAt: number
}

export class FrameSender {
  readonly #send: (bytes: Uint8Array) => void
  readonly #now: () => number
  #unacknowledged: SentFrame[] = []
  #next = 1
  #received = 0
  #credit = WINDOW
  #closed = false
  #wake: (() => void) | undefined

  constructor(send: (bytes: Uint8Array) => void, now: () => number = () => performance.now()) {
    this.#send = send
    this.#now = now
  }

  /** Whether the receiver has everything. */
  get settled(): boolean {
    return this.#unacknowledged.length === 0
  }

  /** Sends a frame once there is credit for it. Resolves to false if the stream was closed. */
  async give(frame: (seq: number) => Uint8Array): Promise<boolean> {
    while (this.#next > this.#credit && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    if (this.#closed) return false
    const seq = this.#next++
    const bytes = frame(seq)
    this.#unacknowledged.push({ seq, bytes, sentAt: this.#now() })
    this.#send(bytes)
    return true
  }

  /** Takes an acknowledgement: the last frame in order that was received, and the last that may be sent. Impossible numbers are ignored. */
  control(received: number, credit: number): void {
    if (received >= this.#next || credit > received + WINDOW) return
    if (received > this.#received) this.#received = received
    if (credit > this.#credit) this.#credit = credit
    this.#unacknowledged = this.#unacknowledged.filter(({ seq }) => seq > this.#received)
    const now = this.#now()
    for (const frame of this.#unacknowledged) {
      if (now - frame.sentAt < RESEND_MS) continue
      frame.sentAt = now
      this.#send(frame.bytes)
    }
    this.#wake?.()
  }

  close(): void {
    this.#closed = true
    this.#unacknowledged = []
    this.#wake?.()
  }
}

export class FrameReceiver {
  readonly #ahead = new Map<number, Frame>()
  #received = 0
  #credit = WINDOW

  /** The last frame that arrived without a gap before it. */
  get received(): number {
    return this.#received
  }

  /** What to tell the sender. paused: it gets no further credit. */
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
