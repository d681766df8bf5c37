// Adapters as the engine's calls have them: with their arguments checked, and refused where the backend has none.
import type { BackendName } from '../../../kernels/backend.js'
import { AdapterError } from '../../errors.js'
import { checkAdapters } from '../../options/adapter-entries.js'
import type { Coordinator } from '../ranks/coordinator.js'
import type { Scheduler } from '../scheduling/scheduler.js'
import type { AdapterInfo, AdapterStore, HeldAdapter } from './adapter-store.js'

export class EngineAdapters {
  readonly #store: AdapterStore | undefined
  readonly #backend: BackendName
  readonly #scheduler: Scheduler
  readonly #coordinator: Coordinator

  /** store: undefined where the backend has no adapters. */
  constructor(store: AdapterStore | undefined, backend: BackendName, scheduler: Scheduler, coordinator: Coordinator) {
    this.#store = store
    this.#backend = backend
    this.#scheduler = scheduler
    this.#coordinator = coordinator
  }

  get list(): readonly AdapterInfo[] {
    return this.#store?.list ?? []
  }

  get memoryBytes(): number {
    return this.#store?.memoryBytes ?? 0
  }

  /** Rejects with AdapterError, CheckpointError, MemoryError or OptionError. */
  async load(name: string, dir: string): Promise<AdapterInfo> {
    const [[checkedName, checkedDir]] = Object.entries(checkAdapters({ [name]: dir }, 'loadAdapter')) as [[string, string]]
    if (this.#coordinator.fatal) throw this.#coordinator.fatal
    return this.#known().load(checkedName, checkedDir)
  }

  async unload(name: string): Promise<void> {
    await this.#known().unload(String(name), this.#scheduler, () => this.#coordinator.fatal !== undefined)
  }

  /** Throws AdapterError ADAPTER_NOT_FOUND or ADAPTER_UNSUPPORTED. */
  hold(name: string): HeldAdapter {
    return this.#known().hold(name)
  }

  /** Runs work with the adapter of this name, if one is named, which stays for as long. */
  async using<T>(name: string | undefined, work: (adapter: HeldAdapter | undefined) => Promise<T>): Promise<T> {
    const adapter = name === undefined ? undefined : this.hold(name)
    try {
      return await work(adapter)
    } finally {
      adapter?.release()
    }
  }

  #known(): AdapterStore {
    if (this.#store) return this.#store
    throw adaptersUnsupported(this.#backend)
  }
}

export function adaptersUnsupported(backend: BackendName): AdapterError {
  return new AdapterError('ADAPTER_UNSUPPORTED', {
    what: `adapters are not supported by the ${backend} backend`,
    expected: "backend: 'wasm' or 'reference'",
    actual: backend,
    remedy: "Load the engine with backend: 'wasm', or merge the adapter into the model.",
  })
}
