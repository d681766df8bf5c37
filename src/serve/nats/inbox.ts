// Where frames arrive: one subscription of a frontend, with a subject below it for each request.
import { createInbox, type Subscription } from '@nats-io/transport-node'
import type { NatsLink } from './connection.js'

export class Inbox {
  readonly #prefix = createInbox()
  readonly #handlers = new Map<string, (bytes: Uint8Array) => void>()
  readonly #subscription: Subscription

  constructor({ nc }: NatsLink) {
    this.#subscription = nc.subscribe(`${this.#prefix}.*`, {
      callback: (error, { subject, data }) => {
        if (!error) this.#handlers.get(subject.slice(this.#prefix.length + 1))?.(data)
      },
    })
  }

  /** Returns the subject for the frames of a request. */
  open(id: string, handler: (bytes: Uint8Array) => void): string {
    this.#handlers.set(id, handler)
    return `${this.#prefix}.${id}`
  }

  close(id: string): void {
    this.#handlers.delete(id)
  }

  end(): void {
    this.#subscription.unsubscribe()
  }
}
