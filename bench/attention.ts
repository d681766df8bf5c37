// The measurement of the authors' benchmark_decoding_speed.py: the attention kernel of one device in their shapes, batch 1, one query row.
import { CACHE_FORMAT_NAMES, CACHE_FORMATS } from '../kernels/cache-formats.js'
import { OptionError } from '../src/index.js'
import { type AttentionWidths, cpuAttention } from './attention-case.js'
import { AttentionCase } from './gpu-attention-case.js'
import { openGpu, timePasses } from './gpu-measure.js'
import { type BenchContext, type Benchmark, interleave, type Outcome, type Row } from './harness/benchmark.js'
import { floorMs, rateText, reachedRates } from './harness/floor.js'
import { isTrusted, plotted, type Sample, sampleOf } from './harness/sample.js'
import { Probe } from './probe.js'

/** What a device holds at the authors' degree of tensor parallelism: heads, latent, rope key. */
const SHAPES: readonly AttentionWidths[] = [
  { name: 'MLRA-4 (TP 4)', heads: 64, latent: 128, rope: 64 },
  { name: 'GLA-2 (TP 2)', heads: 32, latent: 256, rope: 64 },
  { name: 'MLA', heads: 64, latent: 512, rope: 64 },
]
/** A quarter of the heads over the whole latent: MLA can be split by heads only. */
const SPLIT_HEADS: AttentionWidths = { name: 'MLA, 16 of its heads', heads: 16, latent: 512, rope: 64 }
/** The paper's, section 5, long contexts. */
const PAPER_RATIO = 2.8

interface Cell {
  readonly shape: AttentionWidths
  readonly tokens: number
  readonly ms: number[]
  /** Milliseconds of reading the same bytes. */
  readonly read: number[]
  bytes: number
  operations: number
  error: number | undefined
}

const newCell = (shape: AttentionWidths, tokens: number): Cell => ({ shape, tokens, ms: [], read: [], bytes: 0, operations: 0, error: undefined })

/** The GPU is measured on tensor cores. */
const FORMATS = {
  cpu: CACHE_FORMAT_NAMES.filter((format) => CACHE_FORMATS[format].cpu),
  gpu: CACHE_FORMAT_NAMES.filter((format) => CACHE_FORMATS[format].gpu?.tensorCores),
}

export const attention: Benchmark = {
  name: 'attention',
  question: "How fast is one rank's attention in the authors' shapes, MLA beside MLRA-4 and GLA-2, and how near to reading the bytes?",
  supports: ['backend', 'adapter', 'contexts', 'cache'],
  run: (context) => {
    const { backend, cache } = context
    if (cache !== undefined && !FORMATS[backend === 'gpu' ? 'gpu' : 'cpu'].includes(cache)) {
      throw new OptionError('OPTION_INVALID', {
        what: `attention on ${backend} does not support this cache format`,
        expected: FORMATS[backend === 'gpu' ? 'gpu' : 'cpu'].join(' or '),
        actual: cache,
        remedy: 'Omit --cache.',
      })
    }
    return backend === 'gpu' ? onGpu(context) : onCpu(context)
  },
}

async function onCpu(context: BenchContext): Promise<Outcome> {
  const contexts = context.contexts ?? (context.quick ? [1024, 4096] : [16384, 65536, 131072])
  const format = context.cache ?? 'bf16'
  const longest = Math.max(...contexts)
  const shapes = [...SHAPES, SPLIT_HEADS]
  const runs = shapes.map((shape) => cpuAttention(shape, longest, format))
  const cells = shapes.flatMap((shape) => contexts.map((tokens) => newCell(shape, tokens)))
  const probe = new Probe(1, context.quick ? 64e6 : 400e6)
  const multiply: number[] = []
  const read: number[] = []
  await interleave(context, cells, async (cell, warmUp) => {
    const run = runs[shapes.indexOf(cell.shape)] as (typeof runs)[number]
    cell.bytes = cell.tokens * run.bytesPerToken
    cell.operations = cell.tokens * run.operationsPerToken
    const ms = run.time(cell.tokens)
    const rate = await probe.rate('wasm read')
    if (warmUp) return
    cell.ms.push(ms)
    cell.read.push(cell.bytes / rate / 1e6)
    read.push(rate)
    multiply.push(await probe.rate('multiply'))
  })
  await probe.close()
  const probed = { read: Math.max(0, ...read), multiply: Math.max(0, ...multiply) }
  const used = reachedRates(probed, cells)
  return outcome(cells, {
    floor: `reading the cached bytes at ${rateText('read', probed, used)} (a WebAssembly loop in turn with each run), or the multiply-adds at ${rateText('multiply', probed, used)} (in registers), whichever is longer`,
    method: `One thread, ${format} cache, random values, one query row.`,
    floorOf: (cell) => floorMs(cell, used),
  })
}

async function onGpu(context: BenchContext): Promise<Outcome> {
  const contexts = context.contexts ?? (context.quick ? [16384, 131072] : [131072, 524288, 2097152])
  const longest = Math.max(...contexts)
  const gpu = await openGpu(context.adapter)
  const cells: Cell[] = []
  for (const shape of SHAPES) {
    if (context.signal.aborted) break
    const bench = await AttentionCase.open(gpu, shape, longest)
    const errors: number[] = []
    for (const tokens of [1, 63, 65, 1003, Math.min(131072, longest)]) errors.push(await bench.error(tokens))
    for (const tokens of contexts) {
      const cell = newCell(shape, tokens)
      cell.bytes = tokens * bench.bytesPerToken
      cell.error = Math.max(...errors)
      const tables = bench.tables(tokens)
      const passes = await Promise.all(tables.map((first) => bench.dispatches(tokens, first)))
      const reads = await Promise.all(tables.map((first) => bench.reads(tokens, first)))
      for (const us of await timePasses(gpu, passes, Math.max(10, context.rounds))) cell.ms.push(us / 1000)
      for (const us of await timePasses(gpu, reads, Math.max(10, context.rounds))) cell.read.push(us / 1000)
      cells.push(cell)
      context.progress(cells.length, SHAPES.length * contexts.length)
    }
    bench.close()
  }
  await gpu.context.destroy()
  return outcome(cells, {
    floor: 'the cached bytes read once by a kernel that does nothing else, in the same run',
    method:
      'f16 cache in shuffled pages; queries to f16, flash decoding on tensor cores and combining are in the time; by timestamps of the device. Outputs are checked against float64 first.',
    // A kernel that reads for a shape is one probe; the attention kernel itself is another.
    floorOf: (cell) => Math.min(...cell.read, ...cell.ms),
  })
}

function outcome(cells: readonly Cell[], about: { floor: string; method: string; floorOf: (cell: Cell) => number }): Outcome {
  const timed = cells.filter((cell) => cell.ms.length > 0)
  const median = (cell: Cell | undefined) => (cell ? sampleOf(cell.ms)?.median : undefined)
  const at = (name: string, tokens: number) => timed.find((cell) => cell.shape.name === name && cell.tokens === tokens)
  const rows = timed.map((cell): Row & { readonly ms: Sample } => {
    const ms = sampleOf(cell.ms) as Sample
    const floor = about.floorOf(cell)
    const mla = median(at('MLA', cell.tokens))
    return {
      shape: cell.shape.name,
      heads: cell.shape.heads,
      tokens: cell.tokens,
      ms,
      ideal: sampleOf(cell.read)?.median,
      floor,
      share: (100 * floor) / ms.median,
      rate: cell.bytes / ms.median / 1e6,
      mla: mla === undefined ? undefined : mla / ms.median,
      error: cell.error === undefined ? undefined : cell.error.toExponential(1),
    }
  })
  const contexts = [...new Set(timed.map((cell) => cell.tokens))].sort((a, b) => a - b)
  const longest = contexts.at(-1) ?? 0
  const [mlra, mla] = [at('MLRA-4 (TP 4)', longest), at('MLA', longest)]
  const share = (cell: Cell) => `${((100 * about.floorOf(cell)) / (median(cell) as number)).toFixed(0)} %`
  return {
    floor: about.floor,
    method: about.method,
    columns: [
      { key: 'shape', label: 'a rank of' },
      { key: 'heads', label: 'heads' },
      { key: 'tokens', label: 'cached tokens' },
      { key: 'ms', label: 'attention', unit: 'ms', digits: 3 },
      { key: 'ideal', label: 'ideal load time', unit: 'ms', digits: 3 },
      { key: 'floor', label: 'floor', unit: 'ms', digits: 3 },
      { key: 'share', label: 'floor over time', unit: '%', digits: 0 },
      { key: 'rate', label: 'cache read', unit: 'GB/s' },
      { key: 'mla', label: 'MLA over it', digits: 2 },
      { key: 'error', label: 'largest relative error' },
    ],
    rows,
    pictures: [
      {
        name: '',
        title: 'Attention of one rank by cached tokens',
        kind: 'lines',
        x: { title: 'cached tokens', log: true, ticks: contexts },
        y: { title: 'ms', log: true },
        points: rows.map(({ tokens, ms, shape }) => ({
          x: tokens as number,
          ...plotted(ms),
          series: shape as string,
        })),
        floor: rows.map(({ tokens, floor, shape }) => ({ x: tokens as number, y: floor as number, series: shape as string })),
      },
    ],
    answer:
      mlra && mla
        ? [
            `At ${longest} cached tokens MLA takes ${((median(mla) as number) / (median(mlra) as number)).toFixed(2)} times as long as a rank of MLRA-4, reading 3.0 times the bytes (the paper: ${PAPER_RATIO}); floors are ${share(mla)} of MLA's time and ${share(mlra)} of MLRA-4's.`,
            ...doubts([mlra, mla]),
            ...(at(SPLIT_HEADS.name, longest)
              ? [
                  `With its heads split over four ranks each still reads the whole latent, but computes a quarter: ${(median(at(SPLIT_HEADS.name, longest)) as number).toFixed(1)} ms against MLRA-4's ${(median(mlra) as number).toFixed(1)}. A CPU is bound by arithmetic, so there the split of heads is worth as much as the split of latents.`,
                ]
              : []),
          ]
        : [],
  }
}

/** What a reader must know before quoting a ratio of these cells. */
function doubts(cells: readonly Cell[]): string[] {
  const untrusted = cells.filter(({ ms }) => !isTrusted(sampleOf(ms) as Sample)).map(({ shape }) => shape.name)
  return untrusted.length === 0 ? [] : [`Do not quote these ratios: the times of ${untrusted.join(' and ')} spread by more than 30 % of the median.`]
}
