// A bar on stderr while something takes long; nothing where stderr is no terminal. And Ctrl-C as an AbortSignal.
import { SingleBar } from 'cli-progress'
import { Engine } from '../engine/engine.js'
import { engineOptions, type Flags } from './flags.js'
import { commandModel } from './local-model.js'

export interface Bar {
  update(done: number, total: number): void
  stop(): void
}

export function progressBar(what: string, unit = ''): Bar {
  if (!process.stderr.isTTY) return { update: () => {}, stop: () => {} }
  const format = `${what} {bar} {percentage}%${unit === '' ? '' : ` | {value}/{total} ${unit} | {eta_formatted} left`}`
  const bar = new SingleBar({ stream: process.stderr, format, clearOnComplete: true, hideCursor: true })
  let started = false
  return {
    update: (done, total) => {
      if (!started) bar.start(total, 0)
      started = true
      bar.update(done)
    },
    stop: () => bar.stop(),
  }
}

/** Aborts at the first Ctrl-C; a second one ends the process as ever. */
export function interruption(): AbortSignal {
  const controller = new AbortController()
  process.once('SIGINT', () => controller.abort())
  return controller.signal
}

/** Loads a model with a bar; says on stderr what it took, unless JSON is asked for. */
export async function loadEngine(dir: string, flags: Flags, signal: AbortSignal, profile = false): Promise<Engine> {
  const model = await commandModel(dir, signal, flags.json)
  const bar = progressBar('loading')
  const engine = await Engine.load(model, {
    ...engineOptions(flags),
    signal,
    profile,
    onProgress: ({ loadedBytes, totalBytes }) => {
      bar.update(loadedBytes, totalBytes)
      if (loadedBytes === totalBytes) bar.stop()
    },
  }).finally(() => bar.stop())
  if (!flags.json) {
    const { loadMs, memoryBytes, cacheTokens, adapters, backend, backendReason } = engine.info
    const gpu = backend === 'gpu' ? `; on the GPU: ${backendReason}, ${adapters.length} devices` : ''
    console.error(`loaded in ${loadMs.toFixed(0)} ms: ${(memoryBytes / 2 ** 20).toFixed(0)} MiB, with a cache for ${cacheTokens} tokens${gpu}`)
  }
  return engine
}
