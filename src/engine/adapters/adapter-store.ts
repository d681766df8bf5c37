// The adapters of an engine: their names, places and memory. An adapter that is unloaded takes no new request at once, and gives its place and
// its memory back when its last request has ended.
import { setTimeout } from 'node:timers/promises'
import type { SharedMemory } from '../../../kernels/backend.js'
import { bufferOf, createGrowingMemory, growMemory } from '../../../kernels/open-backend.js'
import { type AdapterMemoryLayout, layoutAdapterMemory, writeAdapterTable } from '../../../workers/layout/adapter-layout.js'
import type { ModelLayout } from '../../../workers/layout/model-layout.js'
import type { AdapterLimits, AdapterMemory, RunPlan } from '../../../workers/protocol.js'
import { AdapterError, MemoryError } from '../../errors.js'
import { mib } from '../../mib.js'
import { AdapterPlanner } from '../../model/adapters/adapter-plan.js'
import { type AdapterFiles, openAdapter } from '../../model/adapters/open-adapter.js'
import { packAdapter } from '../../model/adapters/pack-adapter.js'
import { availableMemory } from '../memory.js'
import type { OpenModel } from '../model.js'
import type { Scheduler } from '../scheduling/scheduler.js'
import type { SequenceAdapter } from '../scheduling/sequence.js'
import { Regions } from './regions.js'

/** A loaded adapter. */
export interface AdapterInfo {
  readonly name: string
  /** Its directory, as it was given. */
  readonly dir: string
  /** The largest rank of its projections. */
  readonly rank: number
  /** Of its matrices in memory, padding included. */
  readonly bytes: number
}

/** An adapter that requests of a call use; released once, when they have ended. */
export interface HeldAdapter extends SequenceAdapter {
  release(): void
}

interface Loaded extends AdapterInfo, SequenceAdapter {
  readonly base: number
  /** Calls that use it. */
  users: number
}

/** Longest time between two looks at whether an unloaded adapter is still in use. */
const POLL_MS = 5
/** A WebAssembly memory ends here. */
const MEMORY_LIMIT = 2 ** 32

export interface StoreLimits extends AdapterLimits {
  /** Bytes of all adapters together. */
  readonly bytes: number
}

export class AdapterStore {
  readonly #model: OpenModel
  readonly #limits: StoreLimits
  readonly #planner: AdapterPlanner
  readonly #layout: AdapterMemoryLayout
  readonly #memory: SharedMemory
  readonly #regions: Regions
  /** By place; those that are unloaded stay until nothing uses them. */
  readonly #places: (Loaded | 'reserved' | undefined)[]
  readonly #loaded = new Map<string, Loaded>()
  /** Names that are being loaded. */
  readonly #loading = new Set<string>()
  #serial = 0

  constructor(model: OpenModel, plan: RunPlan, layout: ModelLayout, limits: StoreLimits) {
    const { shape } = model.lowered
    this.#model = model
    this.#limits = limits
    this.#planner = new AdapterPlanner(shape, layout)
    this.#layout = layoutAdapterMemory(layout, shape, plan, limits)
    const most = Math.min(this.#layout.start + limits.bytes, MEMORY_LIMIT)
    this.#memory = createGrowingMemory(plan.backend, this.#layout.tableBytes, most)
    this.#regions = new Regions(this.#layout.start, most)
    this.#places = Array.from({ length: limits.places }, () => undefined)
  }

  /** What the ranks get. */
  get shared(): AdapterMemory {
    const { places, rank } = this.#limits
    return { memory: this.#memory, places, rank }
  }

  /** In the order in which they were loaded. */
  get list(): readonly AdapterInfo[] {
    return [...this.#loaded.values()].map(({ name, dir, rank, bytes }) => ({ name, dir, rank, bytes }))
  }

  /** Bytes of the memory that adapters have taken, scratch of the ranks included. */
  get memoryBytes(): number {
    return bufferOf(this.#memory).byteLength
  }

  /** Reads and checks the files of adapters, and how many bytes they would take. Rejects as openAdapter does. */
  async open(dirs: Readonly<Record<string, string>>): Promise<{ files: Map<string, AdapterFiles>; bytes: number }> {
    const names = Object.keys(dirs)
    if (names.length > this.#limits.places) throw this.#tooMany(names.length)
    const files = new Map<string, AdapterFiles>()
    for (const [name, dir] of Object.entries(dirs)) files.set(name, await this.#open(dir))
    const bytes = [...files.values()].reduce((sum, { tensors }) => sum + this.#bytesOf(tensors), 0)
    return { files, bytes: names.length > 0 ? this.#layout.start + bytes : 0 }
  }

  /** Loads an adapter. Rejects with AdapterError, CheckpointError or MemoryError, and then nothing of it is there. */
  async load(name: string, dir: string, opened?: AdapterFiles): Promise<AdapterInfo> {
    if (this.#loaded.has(name) || this.#loading.has(name)) {
      throw new AdapterError('ADAPTER_EXISTS', {
        what: `an adapter ${JSON.stringify(name)} is loaded already`,
        expected: 'another name',
        remedy: `Call unloadAdapter(${JSON.stringify(name)}) first, or choose another name.`,
      })
    }
    this.#loading.add(name)
    try {
      return await this.#load(name, dir, opened ?? (await this.#open(dir)))
    } finally {
      this.#loading.delete(name)
    }
  }

  /** Throws AdapterError ADAPTER_NOT_FOUND. */
  hold(name: string): HeldAdapter {
    const found = this.#find(name)
    found.users++
    let held = true
    const release = () => {
      if (held) found.users--
      held = false
    }
    return { place: found.place, serial: found.serial, release }
  }

  /** Takes it away from new requests, and resolves when the last one that has it has ended. Throws AdapterError ADAPTER_NOT_FOUND. */
  async unload(name: string, scheduler: Scheduler, isOver: () => boolean): Promise<void> {
    const adapter = this.#find(name)
    this.#loaded.delete(name)
    while (!isOver() && (adapter.users > 0 || scheduler.uses(adapter))) await setTimeout(POLL_MS)
    this.#regions.release(adapter.base)
    this.#places[adapter.place] = undefined
  }

  #find(name: string): Loaded {
    const found = this.#loaded.get(name)
    if (found) return found
    throw new AdapterError('ADAPTER_NOT_FOUND', {
      what: `no adapter ${JSON.stringify(name.slice(0, 200))} is loaded`,
      expected: `one of ${[...this.#loaded.keys()].join(', ') || 'none: no adapter is loaded'}`,
      remedy: 'Load it first, or correct the name.',
    })
  }

  #open(dir: string): Promise<AdapterFiles> {
    return openAdapter(dir, this.#model.lowered, this.#model.variant, this.#limits.rank)
  }

  #bytesOf(tensors: AdapterFiles['tensors']): number {
    return this.#planner.place(tensors, this.#planner.ranks(tensors), 0).layout.bytes
  }

  async #load(name: string, dir: string, { tensors, rank }: AdapterFiles): Promise<AdapterInfo> {
    const table = this.#planner.ranks(tensors)
    const bytes = this.#bytesOf(tensors)
    const place = this.#places.indexOf(undefined)
    if (place < 0) throw this.#tooMany(this.#places.length + 1)
    const base = this.#regions.take(bytes)
    if (base === undefined) {
      throw new AdapterError('ADAPTER_NO_ROOM', {
        what: `there is no room for the adapter ${JSON.stringify(name)}`,
        expected: `adapters of ${mib(this.#limits.bytes)} in all: adapterBytes`,
        actual: `${mib(bytes)}, beside ${mib(this.#regions.takenBytes)}`,
        remedy: 'Unload another adapter, or load the engine with larger adapterBytes.',
      })
    }
    this.#places[place] = 'reserved'
    try {
      this.#grow(base + bytes)
      const buffer = bufferOf(this.#memory)
      new Uint8Array(buffer, base, bytes).fill(0)
      const path = (tensors[0] as AdapterFiles['tensors'][number]).a.path
      await packAdapter(this.#planner.place(tensors, table, base).fills, buffer, path)
      const serial = ++this.#serial
      writeAdapterTable(buffer, this.#layout.tables[place] as number, serial, base, table)
      const loaded: Loaded = { name, dir, rank, bytes, place, serial, base, users: 0 }
      this.#places[place] = loaded
      this.#loaded.set(name, loaded)
      return { name, dir, rank, bytes }
    } catch (error) {
      this.#places[place] = undefined
      this.#regions.release(base)
      throw error
    }
  }

  #grow(bytes: number): void {
    const more = bytes - this.memoryBytes
    if (more <= 0) return
    const available = availableMemory()
    const fail = (actual: string, cause?: unknown) =>
      new MemoryError('MEMORY_EXHAUSTED', {
        what: 'there is not enough memory for the adapter',
        expected: `${mib(more)} more`,
        actual,
        remedy: 'Unload another adapter, or free memory.',
        cause,
      })
    if (more > available) throw fail(mib(available))
    try {
      growMemory(this.#memory, bytes)
    } catch (cause) {
      throw fail(cause instanceof Error ? cause.message : String(cause), cause)
    }
  }

  #tooMany(count: number): AdapterError {
    const { places } = this.#limits
    return new AdapterError('ADAPTER_NO_ROOM', {
      what: 'too many adapters',
      expected: `at most ${places}, those that are being unloaded included`,
      actual: String(count),
      remedy: `Unload another one, or load the engine with maxAdapters: ${count}.`,
    })
  }
}
