// Rates of the machine by rank count, measured in turn with the cells of a benchmark.
import { gpuReadRate } from './gpu-measure.js'
import type { BenchContext } from './harness/benchmark.js'
import type { FloorRates } from './harness/floor.js'
import { Probe } from './probe.js'

export type Ranks = 1 | 2 | 4

export interface Rates {
  /** GB/s and GFLOP/s by ranks. On a GPU only reading is measured. */
  readonly read: Readonly<Partial<Record<Ranks, number>>>
  readonly multiply: Readonly<Partial<Record<Ranks, number>>>
}

/** Measures the rates of as many threads as there are ranks, or of the GPU. */
export class RateMeter {
  readonly #read = new Map<Ranks, number[]>()
  readonly #multiply = new Map<Ranks, number[]>()
  readonly #probes = new Map<Ranks, Probe>()
  readonly #adapter: string | undefined
  readonly #gpu: boolean
  #gpuRate: number | undefined

  constructor({ backend, adapter, quick }: BenchContext, ranks: readonly Ranks[]) {
    this.#gpu = backend === 'gpu'
    this.#adapter = adapter
    if (!this.#gpu) for (const r of ranks) this.#probes.set(r, new Probe(r, quick ? 64e6 : 400e6))
  }

  async measure(ranks: Ranks): Promise<void> {
    if (this.#gpu) {
      this.#gpuRate ??= await gpuReadRate(this.#adapter?.startsWith('pci-') ? undefined : this.#adapter)
      add(this.#read, ranks, this.#gpuRate)
      return
    }
    const probe = this.#probes.get(ranks) as Probe
    add(this.#read, ranks, await probe.rate('wasm read'))
    add(this.#multiply, ranks, await probe.rate('multiply'))
  }

  async close(): Promise<Rates> {
    for (const probe of this.#probes.values()) await probe.close()
    const fastest = (of: Map<Ranks, number[]>) => Object.fromEntries([...of].map(([ranks, values]) => [ranks, Math.max(...values)]))
    return { read: fastest(this.#read), multiply: fastest(this.#multiply) }
  }
}

function add(to: Map<Ranks, number[]>, ranks: Ranks, value: number): void {
  to.set(ranks, [...(to.get(ranks) ?? []), value])
}

/** The rates at one rank count. */
export function atRanks({ read, multiply }: Rates, ranks: Ranks): FloorRates {
  return { ...(read[ranks] !== undefined && { read: read[ranks] }), ...(multiply[ranks] !== undefined && { multiply: multiply[ranks] }) }
}
