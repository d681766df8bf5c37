// What latent heads that can be split gain over MLA, GLA and GQA: time and cached bytes of a decode step by variant, ranks and
// context, for models of equal parameter counts. Long contexts are random cached values: neither time nor bytes depend on them.
import { Engine, type EngineOptions, inspect, MemoryError } from '../src/index.js'
import { attentionOperations, packedBytes, pretendCached, readCounters } from '../src/testing.js'
import { gpuReadRate } from './gpu-measure.js'
import { type BenchContext, type Benchmark, interleave, type Outcome, type Row } from './harness/benchmark.js'
import { type FloorRates, floorMs, type MeasuredWork, reachedRates } from './harness/floor.js'
import type { Picture, Point } from './harness/pictures.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { benchModel } from './models.js'
import { Probe } from './probe.js'

type Ranks = 1 | 2 | 4

interface Cell {
  readonly variant: string
  readonly ranks: Ranks
  readonly context: number
  readonly ms: number[]
  /** Bytes of a token's cached rows that the fullest rank holds, as planned, and as the ranks count while they read. */
  predicted: number
  counted: number
  /** All ranks together: weights of a step; cached bytes and operations of attention. */
  weightBytes: number
  cacheBytes: number
  operations: number
  /** Of the ranks' time, waiting at collectives, in percent. */
  waiting: number | undefined
  /** Collectives of a step. */
  collectives: number
  /** Why there are no times. */
  missing: string | undefined
}

export interface ScalingRow extends Row {
  readonly variant: string
  readonly ranks: number
  readonly context: number
  readonly ms: Sample | undefined
}

const DEFAULTS = {
  wasm: {
    size: 'small',
    variants: ['mlra_4', 'mlra_2', 'mla', 'gla_2', 'gla_4', 'gqa', 'mqa', 'mha'],
    ranks: [1, 2, 4],
    contexts: [1024, 4096, 16384, 65536, 131072, 524288, 2097152],
    cache: 'bf16',
  },
  gpu: { size: '2.9b', variants: ['mlra_4', 'mla', 'gla_2', 'gqa'], ranks: [1], contexts: [1024, 16384, 131072, 524288], cache: 'f16' },
  quick: { size: 'tiny', variants: ['mlra_4', 'mla', 'gqa'], ranks: [1, 2, 4], contexts: [256, 1024], cache: 'f32' },
} as const

export const scaling: Benchmark = {
  name: 'scaling',
  question: 'What do latent heads that can be split gain over MLA, GLA and GQA, in bytes and in time?',
  supports: ['backend', 'adapter', 'variants', 'ranks', 'contexts', 'cache', 'preset'],
  async run(context) {
    const defaults = DEFAULTS[context.quick ? 'quick' : context.backend]
    const size = context.preset ?? defaults.size
    const cache = context.cache ?? defaults.cache
    const contexts = [...(context.contexts ?? defaults.contexts)].sort((a, b) => a - b)
    const engines = (context.variants ?? defaults.variants).flatMap((variant) =>
      (context.ranks ?? defaults.ranks).map((ranks) => ({
        variant,
        ranks,
        cells: contexts.map(
          (n): Cell => ({
            variant,
            ranks,
            context: n,
            ms: [],
            predicted: 0,
            counted: 0,
            weightBytes: 0,
            cacheBytes: 0,
            operations: 0,
            waiting: undefined,
            collectives: 0,
            missing: undefined,
          }),
        ),
      })),
    )
    const meter = new RateMeter(context, [...new Set(engines.map((e) => e.ranks))])
    let parameters = 0
    // A large model takes long to load onto a device: there an engine stays for all of its repetitions.
    const stays = context.backend === 'gpu' && !context.quick
    const repeats = stays ? context.rounds : 1
    await interleave(stays ? { ...context, rounds: 0 } : context, engines, async ({ variant, ranks, cells }, warmUp) => {
      await meter.measure(ranks)
      if (cells.every((cell) => cell.missing !== undefined)) return
      const dir = await benchModel(context.folder, size, variant, context.seed)
      const options: EngineOptions = {
        ranks,
        cache,
        backend: context.backend,
        ...(context.adapter !== undefined && { adapter: context.adapter.split(',') }),
      }
      if (warmUp && (!stays || ranks > 1)) parameters = await measureEngine(dir, options, cells, 0)
      if (!warmUp || stays) parameters = await measureEngine(dir, options, cells, repeats, stays)
    })
    const cells = engines.flatMap((engine) => engine.cells)
    const rates = ratesOfCells(await meter.close(), cells)
    const rows = cells.map((cell) => rowOf(cell, cells, rates))
    return outcome(context, rows, { size, parameters, cache, rates })
  },
}

/**
 * Times every cell `repeats` times, after a run that is not counted if `warm`; or, at 0 repeats, once with a profile, which costs some speed.
 * The longest context that fits is found from the longest down: a cache is of one size. Returns the model's parameters.
 */
async function measureEngine(dir: string, options: EngineOptions, cells: readonly Cell[], repeats: number, warm = false): Promise<number> {
  for (let last = cells.length - 1; last >= 0; last--) {
    const longest = (cells[last] as Cell).context
    if ((cells[last] as Cell).missing !== undefined) continue
    let engine: Engine
    try {
      const tokens = longest + 256
      engine = await Engine.load(dir, { ...options, maxContext: tokens, cacheTokens: tokens, maxRunning: 1, profile: repeats === 0 })
    } catch (error) {
      if (!(error instanceof MemoryError)) throw error
      ;(cells[last] as Cell).missing = error.code
      continue
    }
    try {
      const prompt = Array.from({ length: longest }, (_, i) => (i * 7919 + 13) % engine.info.vocab)
      await pretendCached(engine, prompt)
      const { kvCache } = await inspect(dir, options)
      const predicted = kvCache.find((cost) => cost.ranks === options.ranks)?.bytesPerToken ?? 0
      const fitting = cells.slice(0, last + 1)
      if (warm) for (const cell of fitting) await measureCell(engine, prompt, cell, predicted, 'warm-up')
      for (let i = 0; i < Math.max(1, repeats); i++)
        for (const cell of fitting) await measureCell(engine, prompt, cell, predicted, repeats === 0 ? 'profile' : 'time')
      return engine.info.parameters
    } finally {
      await engine.close()
    }
  }
  return 0
}

async function measureCell(
  engine: Engine,
  prompt: readonly number[],
  cell: Cell,
  predicted: number,
  why: 'time' | 'profile' | 'warm-up',
): Promise<void> {
  const steps = cell.context > 200_000 ? 2 : cell.context > 100_000 ? 3 : cell.context > 20_000 ? 5 : 9
  const before = readCounters(engine)
  const { timings, tokens } = await engine.generate([...prompt.slice(0, cell.context), 1], { maxTokens: steps, ignoreEos: true })
  const after = readCounters(engine)
  const read = after.map((counter, rank) => counter.cacheBytes - (before[rank]?.cacheBytes ?? 0))
  // The step that computes the prompt's last token reads it and all before it; each step after it one more.
  const rows = Array.from(tokens, (_, i) => cell.context + 1 + i).reduce((a, b) => a + b, 0)
  cell.predicted = predicted
  cell.counted = Math.max(...read) / rows
  cell.cacheBytes = (read.reduce((a, b) => a + b, 0) / rows) * cell.context
  cell.weightBytes = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
  cell.operations = attentionOperations(engine) * cell.context + 2 * engine.info.parameters
  if (why === 'time') cell.ms.push(1000 / timings.tokensPerSecond)
  if (why !== 'profile') return
  const { ranks, steps: profiled } = engine.profile()
  const waiting = ranks.flatMap(({ parts }) => parts.filter(({ name }) => name.startsWith('wait: ')))
  const all = ranks.reduce((sum, { stepMs }) => sum + stepMs, 0)
  cell.collectives = waiting.reduce((sum, { calls }) => sum + calls, 0) / Math.max(1, ranks.length - 1) / Math.max(1, profiled)
  cell.waiting = all > 0 ? (100 * waiting.reduce((sum, { ms }) => sum + ms, 0)) / all : undefined
}

export interface Rates {
  /** GB/s and GFLOP/s by ranks; on a GPU operations bound nothing that is measured here. */
  readonly read: Readonly<Partial<Record<Ranks, number>>>
  readonly multiply: Readonly<Partial<Record<Ranks, number>>>
}

/** Rates of reading and multiplying, in turn with what is measured, by as many threads. */
class RateMeter {
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

/** Of all ranks together: a step reads the weights and the cached rows once. */
function workOf({ weightBytes, cacheBytes, operations, ms }: Cell): MeasuredWork {
  return { bytes: weightBytes + cacheBytes, operations, ms }
}

function atRanks({ read, multiply }: Rates, ranks: Ranks): FloorRates {
  return { ...(read[ranks] !== undefined && { read: read[ranks] }), ...(multiply[ranks] !== undefined && { multiply: multiply[ranks] }) }
}

/** The probed rates, raised at each rank count to those that its cells reached. */
function ratesOfCells(probed: Rates, cells: readonly Cell[]): Rates {
  const counts = [...new Set(cells.map((cell) => cell.ranks))]
  const used = counts.map((ranks) => [ranks, reachedRates(atRanks(probed, ranks), cells.filter((cell) => cell.ranks === ranks).map(workOf))] as const)
  const pick = (of: keyof FloorRates) => Object.fromEntries(used.flatMap(([ranks, rates]) => (rates[of] === undefined ? [] : [[ranks, rates[of]]])))
  return { read: pick('read'), multiply: pick('multiply') }
}

function rowOf(cell: Cell, all: readonly Cell[], rates: Rates): ScalingRow {
  const ms = sampleOf(cell.ms)
  const timeOf = (variant: string, ranks: number) =>
    sampleOf(all.find((c) => c.variant === variant && c.ranks === ranks && c.context === cell.context)?.ms ?? [])?.median
  const ratio = (other: number | undefined) => (ms && other !== undefined ? other / ms.median : undefined)
  const floor = ms ? floorMs(workOf(cell), atRanks(rates, cell.ranks)) : undefined
  return {
    variant: cell.variant,
    ranks: cell.ranks,
    context: cell.context,
    ms,
    rate: ms && 1000 / ms.median,
    floor,
    timesFloor: ms && floor ? ms.median / floor : undefined,
    predicted: ms && cell.predicted,
    counted: ms && cell.counted,
    overOneRank: ratio(timeOf(cell.variant, 1)),
    overMla: ratio(timeOf('mla', cell.ranks)),
    waiting: cell.waiting,
    missing: cell.missing,
    weightBytes: cell.weightBytes,
    cacheBytes: cell.cacheBytes,
    operations: cell.operations,
    collectives: cell.collectives,
  }
}

interface Facts {
  readonly size: string
  readonly parameters: number
  readonly cache: string
  readonly rates: Rates
}

function outcome(context: BenchContext, rows: readonly ScalingRow[], { size, parameters, cache, rates }: Facts): Outcome {
  const list = (of: Readonly<Partial<Record<Ranks, number>>>, unit: string) =>
    Object.entries(of)
      .map(([ranks, value]) => `${value.toFixed(0)} ${unit} at ${ranks}`)
      .join(', ')
  const reads = `weights and cached rows once at the rate at which ${context.backend === 'gpu' ? 'a kernel' : 'threads'} read (${list(rates.read, 'GB/s')})`
  const multiplies =
    context.backend === 'gpu' ? '' : `, or all multiply-adds at the rate of registers (${list(rates.multiply, 'GFLOP/s')}), whichever is longer`
  return {
    floor: `${reads}${multiplies}; ranks as threads`,
    method: `Models '${size}' of ${(parameters / 1e6).toFixed(0)} M parameters, random weights in bf16, ${cache} cache, batch 1. A step's time is that of the tokens after the first. Waiting is from a profile of a run that is not timed.${context.backend === 'gpu' ? ' Each engine stays on the device for its repetitions.' : ''}`,
    columns: [
      { key: 'variant', label: 'variant' },
      { key: 'ranks', label: 'ranks' },
      { key: 'context', label: 'context' },
      { key: 'ms', label: 'a token', unit: 'ms', digits: 2 },
      { key: 'rate', label: 'tokens/s' },
      { key: 'floor', label: 'floor', unit: 'ms', digits: 2 },
      { key: 'timesFloor', label: 'over the floor', digits: 2 },
      { key: 'predicted', label: 'KV bytes a token, fullest rank' },
      { key: 'counted', label: 'counted while read' },
      { key: 'overOneRank', label: 'speed-up over 1 rank', digits: 2 },
      { key: 'overMla', label: 'over MLA at these ranks', digits: 2 },
      { key: 'waiting', label: 'at collectives', unit: '%' },
      { key: 'missing', label: 'not measured' },
    ],
    rows,
    pictures: pictures(rows),
    answer: answer(rows, context),
    facts: { rates, size, parameters, cache },
  }
}

function pictures(rows: readonly ScalingRow[]): Picture[] {
  const contexts = [...new Set(rows.map((r) => r.context))]
  const longest = longestOfAll(rows)
  const facet = (ranks: number) => (ranks === 1 ? '1 rank' : `${ranks} ranks`)
  const timed = rows.filter((row): row is ScalingRow & { ms: Sample } => row.ms !== undefined)
  const point = (row: ScalingRow & { ms: Sample }): Point => ({
    x: row.context,
    ...plotted(row.ms),
    series: row.variant,
    facet: facet(row.ranks),
  })
  return [
    {
      name: '',
      title: 'Time of a decode step by context',
      kind: 'lines',
      x: { title: 'cached tokens', log: true, ticks: contexts },
      y: { title: 'ms a token', log: true },
      points: timed.map(point),
      floor: timed.map((row) => ({ x: row.context, y: row.floor as number, series: row.variant, facet: facet(row.ranks) })),
    },
    {
      name: 'bytes',
      title: 'Cached bytes that the fullest rank reads for a token of context, as the ranks counted them',
      kind: 'bars',
      x: { title: '' },
      y: { title: 'bytes a cached token' },
      points: timed
        .filter((row) => row.context === Math.min(...contexts))
        .map((row) => ({ x: row.variant, y: row.counted as number, series: facet(row.ranks) })),
    },
    {
      name: 'longest',
      title: `Time of a decode step at ${longest} cached tokens`,
      kind: 'bars',
      x: { title: '' },
      y: { title: 'ms a token' },
      points: timed.filter((row) => row.context === longest).map((row) => ({ ...point(row), x: row.variant, series: facet(row.ranks), facet: '' })),
    },
  ]
}

function answer(rows: readonly ScalingRow[], { backend }: BenchContext): string[] {
  const at = (variant: string, ranks: number, context: number) =>
    rows.find((r) => r.variant === variant && r.ranks === ranks && r.context === context)
  const timed = rows.filter((r) => r.ms !== undefined)
  const longest = longestOfAll(rows)
  const most = Math.max(...timed.map((r) => r.ranks))
  const sentences: string[] = []
  const mlra = at('mlra_4', most, longest)
  const mla = at('mla', most, longest)
  if (mlra?.ms && mla?.ms) {
    const bytes = ((mla.counted as number) / (mlra.counted as number)).toFixed(2)
    sentences.push(
      `At ${most} ranks and ${longest} cached tokens MLRA-4 takes ${mlra.ms.median.toFixed(1)} ms a token and MLA ${mla.ms.median.toFixed(1)}: MLA over MLRA-4 is ${(mla.ms.median / mlra.ms.median).toFixed(2)} in time and ${bytes} in bytes that a rank reads.`,
    )
  }
  const faster = timed.filter((r) => r.ranks === most && r.context === longest && mlra?.ms && (r.ms?.median ?? 0) < mlra.ms.median * 0.97)
  if (faster.length > 0) {
    const names = faster.map((r) => `${r.variant} (${r.ms?.median.toFixed(1)} ms)`).join(', ')
    sentences.push(`Faster than MLRA-4 there: ${names}.${backend === 'wasm' ? whyOnCpu(mlra as ScalingRow, faster) : ''}`)
  }
  const wrong = timed.filter((r) => Math.abs((r.counted as number) / (r.predicted as number) - 1) > 1e-9)
  sentences.push(
    wrong.length === 0
      ? 'The bytes that the ranks counted while reading are those predicted, in every cell.'
      : `The bytes counted are not those predicted in ${wrong.length} cells.`,
  )
  const furthest = timed.reduce((a, b) => (b.context > a.context || (b.context === a.context && b.variant === 'mlra_4') ? b : a))
  if (furthest.context > longest)
    sentences.push(
      `The longest context that fits: ${furthest.context} tokens, ${furthest.variant} at ${furthest.ranks} ranks in ${furthest.ms?.median.toFixed(0)} ms a token.`,
    )
  const missing = rows.filter((r) => r.missing !== undefined)
  const names = [...new Set(missing.map((r) => `${r.variant} at ${r.context} tokens`))].map((name) => {
    const without = missing.filter((r) => name === `${r.variant} at ${r.context} tokens`)
    return `${name} (${without.map((r) => r.ranks).join(', ')} ranks: ${[...new Set(without.map((r) => r.missing))].join(', ')})`
  })
  if (names.length > 0)
    sentences.push(`Not measured: ${names.join('; ')}.${backend === 'wasm' ? ' A rank has one WebAssembly memory, of 4 GiB at most.' : ''}`)
  return sentences
}

/** The longest context at which MLRA-4 and MLA, or whatever else was measured, have times at every rank count. */
function longestOfAll(rows: readonly ScalingRow[]): number {
  const compared = rows.filter((r) => r.variant === 'mlra_4' || r.variant === 'mla')
  const of = compared.length > 0 ? compared : rows
  const contexts = [...new Set(rows.map((r) => r.context))].filter((n) => of.every((r) => r.context !== n || r.ms !== undefined))
  return Math.max(...(contexts.length > 0 ? contexts : rows.filter((r) => r.ms !== undefined).map((r) => r.context)))
}

/** A CPU is bound by arithmetic where a GPU is bound by bytes. */
function whyOnCpu(mlra: ScalingRow, faster: readonly ScalingRow[]): string {
  const least = faster.reduce((a, b) => ((a.operations as number) < (b.operations as number) ? a : b))
  const times = ((mlra.operations as number) / (least.operations as number)).toFixed(1)
  return (
    ` A CPU is bound by arithmetic at long contexts, not by bytes: with absorbed weights every query head meets every latent, which is ${times} times ` +
    `the multiply-adds of ${least.variant} here. Splitting latents over ranks that share one memory saves what a rank reads, and no arithmetic.`
  )
}
