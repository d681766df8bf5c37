// Piscina's pool as rank-group.ts uses it: as many Web Workers as tasks, one task each.
const listeners = (worker) => {
  worker.once = (event, listener) => {
    if (event === 'message') worker.addEventListener('message', ({ data }) => listener(data), { once: true })
  }
  return worker
}

export class Piscina {
  options = {}
  threads
  #free
  #next = 0

  constructor({ maxThreads }) {
    this.threads = Array.from({ length: maxThreads }, () => listeners(new Worker(new URL('./rank-worker.js', import.meta.url), { type: 'module' })))
    this.#free = [...this.threads]
  }

  on(event, listener) {
    if (event === 'error') for (const thread of this.threads) thread.addEventListener('error', ({ message }) => listener(new Error(message)))
  }

  run(task, { transferList = [] } = {}) {
    const thread = this.#free.pop()
    const id = this.#next++
    return new Promise((resolve) => {
      thread.addEventListener('message', ({ data }) => {
        if (data?.done === id) resolve()
      })
      thread.postMessage({ id, task }, transferList)
    })
  }

  async destroy() {
    for (const thread of this.threads) thread.terminate()
  }
}
