// How fast a model reads prompts and decodes batches on a GPU, beside what the card could do and what PyTorch's products take.
import { Engine, OptionError } from '../src/index.js'
import { packedBytes } from '../src/testing.js'
import { gpuMultiplyRate, gpuReadRate } from './gpu-measure.js'
import { type BenchContext, type Benchmark, interleave, type Row } from './harness/benchmark.js'
import { type FloorRates, floorMs, type MeasuredWork, rateText, reachedRates } from './harness/floor.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { type ProductWork, productWork } from './model/product-work.js'
import { benchLowered, benchModel } from './models.js'
import { type TorchProducts, torchProducts } from './peers/torch-products.js'
import { prompts } from './traffic.js'

const VARIANT = 'mlra_4'
/** Rows of a step of a prompt: what PyTorch multiplies at a time. */
const CHUNK = 4096
/** Tokens of a prompt before decoding, where several sequences decode; and of the one that decodes alone. */
const SHORT = 16
const CACHED = 1000

interface Cell {
  readonly what: 'prompt' | 'decode'
  /** Tokens of the prompt, or sequences at once. */
  readonly size: number
  /** Cached tokens of a sequence, on average. */
  readonly cached: number
  /** Tokens/s of each round. */
  readonly rates: number[]
}

function cellsOf({ quick, contexts }: BenchContext, out: number): Cell[] {
  const prompt = (size: number): Cell => ({ what: 'prompt', size, cached: size / 2, rates: [] })
  const decode = (size: number, from: number): Cell => ({ what: 'decode', size, cached: from + out / 2, rates: [] })
  const lengths = contexts ?? (quick ? [64] : [1000, 4000, 16_000])
  return [...lengths.map(prompt), decode(1, quick ? SHORT : CACHED), ...(quick ? [4] : [4, 16, 64]).map((n) => decode(n, SHORT))]
}

export const gpuThroughput: Benchmark = {
  name: 'gpu-throughput',
  question: 'How many tokens a second does a GPU read of prompts, and generate for 1 to 64 sequences at once?',
  supports: ['backend', 'adapter', 'preset', 'cache', 'contexts'],
  backends: ['gpu'],
  async run(context) {
    const { backend, adapter, cache = 'f16', quick } = context
    if (backend !== 'gpu') {
      throw new OptionError('OPTION_INVALID', {
        what: 'this benchmark measures a GPU',
        expected: 'backend gpu',
        actual: backend,
        remedy: 'Add --backend gpu.',
      })
    }
    const size = context.preset ?? (quick ? 'tiny' : '2.9b')
    const dir = await benchModel(context.folder, size, VARIANT, context.seed)
    const work = productWork(benchLowered(size, VARIANT), VARIANT)
    const named = adapter === undefined ? {} : { adapter }
    const read = await gpuReadRate(adapter, quick ? 2 ** 24 : 2 ** 30)
    const multiply = await gpuMultiplyRate(adapter)
    const probed: FloorRates = multiply === undefined ? { read } : { read, multiply }
    const out = quick ? 4 : 64
    const cells = cellsOf(context, out)
    const longest = Math.max(CACHED, ...cells.filter(({ what }) => what === 'prompt').map((cell) => cell.size)) + 2 * out
    const prefillChunk = CHUNK
    const engine = await Engine.load(dir, {
      backend: 'gpu',
      cache,
      prefillChunk,
      maxRunning: 64,
      maxContext: longest,
      cacheTokens: longest + 64 * 256,
      ...named,
    })
    const { prompt } = prompts(context.seed, work.head[0])
    await interleave(context, cells, async (cell, warmUp) => {
      const rate = cell.what === 'prompt' ? await readPrompt(engine, prompt(cell.size)) : await decode(engine, cell, out, prompt)
      if (!warmUp) cell.rates.push(rate)
    })
    const bytes = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
    await engine.close()
    const torch = quick ? 'not run with --quick' : await torchProducts(work, [1, 4, 16, 64, CHUNK])
    const timed = cells.filter(({ rates }) => rates.length > 0)
    const used = reachedRates(
      probed,
      timed.map((cell) => workOf(cell, work, bytes)),
    )
    const rows = timed.map((cell): Row & { readonly rate: Sample } => {
      const rate = sampleOf(cell.rates) as Sample
      const limit = (1000 * tokensOf(cell)) / floorMs(workOf(cell, work, bytes), used)
      return {
        what: cell.what === 'prompt' ? `prompt of ${cell.size}` : `${cell.size} at once, ${Math.round(cell.cached - out / 2)} cached`,
        kind: cell.what,
        size: cell.size,
        rate,
        ms: (1000 * tokensOf(cell)) / rate.median,
        limit,
        share: (100 * rate.median) / limit,
        torch: torchRate(cell, torch),
      }
    })
    const multiplying =
      used.multiply === undefined ? '' : `, or the multiply-adds at ${rateText('multiply', probed, used)} (tensor cores, in registers)`
    return {
      floor: `all weights and cached rows at ${rateText('read', probed, used)} (a kernel that only reads)${multiplying}, whichever takes longer`,
      method: `${VARIANT} of size ${size}, random weights in bf16, ${cache} cache, 1 rank, prefillChunk ${CHUNK}. Prompts of random tokens until the first token; decoding of ${out} tokens each, greedy, after prompts of ${SHORT} (alone: ${CACHED}) tokens, from the first token on. ${torchText(torch)}`,
      columns: [
        { key: 'what', label: 'work' },
        { key: 'rate', label: 'tokens/s', digits: 0 },
        { key: 'ms', label: 'ms', digits: 2 },
        { key: 'limit', label: 'at the floor', unit: 'tokens/s', digits: 0 },
        { key: 'share', label: 'of the floor', unit: '%', digits: 0 },
        { key: 'torch', label: "PyTorch's products alone", unit: 'tokens/s', digits: 0 },
      ],
      rows,
      pictures: (['prompt', 'decode'] as const).map((kind) => {
        const own = rows.filter((row) => row.kind === kind)
        const series = 'Tetrad'
        const others = own.flatMap(({ size, torch }) =>
          typeof torch === 'number' ? [{ x: size as number, y: torch, series: "PyTorch's products alone" }] : [],
        )
        return {
          name: kind,
          title: kind === 'prompt' ? 'Reading a prompt' : 'Decoding, by sequences at once',
          kind: 'lines',
          x: { title: kind === 'prompt' ? 'tokens of the prompt' : 'sequences at once', log: true, ticks: own.map((row) => row.size as number) },
          y: { title: 'tokens/s', log: true },
          points: [...own.map(({ size, rate }) => ({ x: size as number, ...plotted(rate), series })), ...others],
          bound: 'limit',
          floor: own.map(({ size, limit }) => ({ x: size as number, y: limit as number, series })),
        }
      }),
      answer: rows.map(({ what, rate, share }) => `${what}: ${rate.median.toFixed(0)} tokens/s, ${(share as number).toFixed(0)} % of the floor.`),
    }
  },
}

/** Tokens of what a cell's milliseconds are: a whole prompt, or a step. */
const tokensOf = ({ size }: Cell) => size

async function readPrompt(engine: Engine, prompt: number[]): Promise<number> {
  const { timings } = await engine.generate(prompt, { maxTokens: 1, ignoreEos: true })
  return (1000 * prompt.length) / timings.ttftMs
}

/** Tokens/s after the first ones, of all sequences together. */
async function decode(engine: Engine, { size, cached }: Cell, out: number, prompt: (length: number) => number[]): Promise<number> {
  const params = { maxTokens: out, ignoreEos: true, temperature: 0 }
  const all = await Promise.all(Array.from({ length: size }, () => engine.generate(prompt(cached - out / 2), params)))
  return all.reduce((sum, { timings }) => sum + timings.tokensPerSecond, 0)
}

function workOf({ what, size, cached, rates }: Cell, { layerFlops, headFlops, attentionFlops }: ProductWork, bytes: number): MeasuredWork {
  const ms = rates.map((rate) => (1000 * size) / rate)
  const rows = size * (layerFlops + cached * attentionFlops)
  return { bytes, operations: rows + headFlops * (what === 'prompt' ? 1 : size), ms }
}

function torchRate({ what, size }: Cell, torch: TorchProducts | string): number | undefined {
  if (typeof torch === 'string') return undefined
  const step = torch.steps.find(({ rows }) => rows === (what === 'prompt' ? CHUNK : size))
  return step && (what === 'prompt' ? (1000 * CHUNK) / step.layersMs : (1000 * size) / (step.layersMs + step.headMs))
}

function torchText(torch: TorchProducts | string): string {
  if (typeof torch === 'string') return `PyTorch: no measurement (${torch}).`
  return `PyTorch ${torch.version}: the same matrices in a CUDA graph (prompts: ${CHUNK} rows at a time, without the output projection), no attention; a product of 8192 x 8192 bf16 matrices has ${torch.tflops.toFixed(0)} TFLOP/s.`
}
