// Rows, pictures and answer of the scaling benchmark, from its measured cells.
import type { BenchContext, Outcome, Row } from './harness/benchmark.js'
import { type FloorRates, floorMs, type MeasuredWork, reachedRates } from './harness/floor.js'
import type { Picture, Point } from './harness/pictures.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { atRanks, type Ranks, type Rates } from './rate-meter.js'

export interface Cell {
  readonly variant: string
  readonly ranks: Ranks
  readonly context: number
  readonly ms: number[]
  /** Cached bytes of a token on the fullest rank: as planned, and as the ranks count them while reading. */
  predicted: number
  counted: number
  /** Of a step, all ranks together: bytes of weights and of cached rows, floating-point operations. */
  weightBytes: number
  cacheBytes: number
  operations: number
  /** Percent of the ranks' time that they wait at collectives. */
  waiting: number | undefined
  /** Collectives of a step. */
  collectives: number
  /** Bytes that ranks write for each other in a step. */
  exchanged: number
  /** Bytes of the fullest rank's cache. */
  memory: number
  /** Error code, if there are no times. */
  missing: string | undefined
}

export interface ScalingRow extends Row {
  readonly variant: string
  readonly ranks: number
  readonly context: number
  readonly ms: Sample | undefined
}

/** Of all ranks together: a step reads the weights and the cached rows once. */
function workOf({ weightBytes, cacheBytes, operations, ms }: Cell): MeasuredWork {
  return { bytes: weightBytes + cacheBytes, operations, ms }
}

/** The probed rates, raised at each rank count to those that its cells reached. */
export function ratesOfCells(probed: Rates, cells: readonly Cell[]): Rates {
  const counts = [...new Set(cells.map((cell) => cell.ranks))]
  const used = counts.map((ranks) => [ranks, reachedRates(atRanks(probed, ranks), cells.filter((cell) => cell.ranks === ranks).map(workOf))] as const)
  const pick = (of: keyof FloorRates) => Object.fromEntries(used.flatMap(([ranks, rates]) => (rates[of] === undefined ? [] : [[ranks, rates[of]]])))
  return { read: pick('read'), multiply: pick('multiply') }
}

export function rowOf(cell: Cell, all: readonly Cell[], rates: Rates): ScalingRow {
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
    exchanged: ms && cell.exchanged / 1024,
    memory: ms && cell.memory / 2 ** 20,
  }
}

interface Facts {
  readonly size: string
  readonly parameters: number
  readonly cache: string
  readonly rates: Rates
}

export function outcome(context: BenchContext, rows: readonly ScalingRow[], { size, parameters, cache, rates }: Facts): Outcome {
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
      { key: 'exchanged', label: 'exchanged a token', unit: 'KiB' },
      { key: 'memory', label: 'cache of the fullest rank', unit: 'MiB' },
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
  sentences.push(...sequenceAnswer(timed, most, longest))
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

/** Where heads that can be split win over a cache cut along the sequence, which needs no new model. */
function sequenceAnswer(timed: readonly ScalingRow[], most: number, longest: number): string[] {
  const at = (variant: string, context: number) => timed.find((r) => r.variant === variant && r.ranks === most && r.context === context)
  const names = [...new Set(timed.map((r) => r.variant).filter((name) => name.endsWith('-sequence')))]
  return names.flatMap((name) => {
    const whole = name.slice(0, -'-sequence'.length)
    const [cut, own, mlra] = [at(name, longest), at(whole, longest), at('mlra_4', longest)]
    if (!cut?.ms || !own?.ms) return []
    const ratio = (a: ScalingRow, b: ScalingRow) => ((a.ms as Sample).median / (b.ms as Sample).median).toFixed(2)
    const faster = [...new Set(timed.map((r) => r.context))].filter((n) => {
      const [a, b] = [at('mlra_4', n), at(name, n)]
      return a?.ms && b?.ms && a.ms.median < b.ms.median
    })
    const against = mlra?.ms
      ? ` MLRA-4 takes ${ratio(mlra, cut)} of its time there, reads ${((mlra.counted as number) / (cut.counted as number)).toFixed(2)} of its bytes and exchanges ${((mlra.exchanged as number) / (cut.exchanged as number)).toFixed(2)} of them; it is faster at ${faster.length > 0 ? `${faster.sort((a, b) => a - b).join(', ')} tokens` : 'no context'}.`
      : ''
    return [
      `${name} at ${most} ranks and ${longest} tokens takes ${ratio(cut, own)} of the time of ${whole}, reads ${((cut.counted as number) / (own.counted as number)).toFixed(2)} of its bytes a rank, and exchanges ${((cut.exchanged as number) / (own.exchanged as number)).toFixed(1)} times as many.${against}`,
    ]
  })
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
