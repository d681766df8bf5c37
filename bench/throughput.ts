// Throughput by concurrent requests. A step reads the weights once for all of its requests; from a few requests on, arithmetic binds.
import { Engine } from '../src/index.js'
import { packedBytes } from '../src/testing.js'
import { type Benchmark, interleave, oneRankCount, type Row } from './harness/benchmark.js'
import { floorMs, type MeasuredWork, rateText, reachedRates } from './harness/floor.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { benchModel } from './models.js'
import { machineRates } from './probe.js'
import { prompts, TINY } from './traffic.js'

/** Tokens of a prompt. Every cell has as many for each output: a share of prompts that differs makes rates that cannot be compared. */
const PROMPT = 32

interface Cell {
  readonly model: string
  readonly engine: Engine
  readonly concurrent: number
  /** Tokens/s of each round. */
  readonly rates: number[]
}

/** What one step of a cell does: all weights read once, and two operations a parameter for each request. */
function workOf({ engine, concurrent, rates }: Cell): MeasuredWork {
  const bytes = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
  return { bytes, operations: concurrent * 2 * engine.info.parameters, ms: rates.map((rate) => (concurrent * 1000) / rate) }
}

export const throughput: Benchmark = {
  name: 'throughput',
  question: 'How many tokens a second does an engine generate for 1 to 64 concurrent requests?',
  supports: ['ranks'],
  async run(context) {
    const ranks = oneRankCount(context)
    const { prompt } = prompts(context.seed)
    const out = context.quick ? 8 : 64
    const models = context.quick ? { tiny: TINY } : { tiny: TINY, mid: await benchModel(context.folder, 'mid', 'mlra_4', context.seed) }
    const engines = Object.fromEntries(
      await Promise.all(
        Object.entries(models).map(async ([name, dir]) => [name, await Engine.load(dir, { ranks, maxRunning: 64, cacheTokens: 16384 })] as const),
      ),
    )
    const cells = Object.entries(engines).flatMap(([model, engine]) =>
      (context.quick ? [1, 4] : [1, 4, 16, 64]).map((concurrent): Cell => ({ model, engine, concurrent, rates: [] })),
    )
    await interleave(context, cells, async ({ engine, concurrent, rates }, warmUp) => {
      const start = performance.now()
      await Promise.all(Array.from({ length: concurrent }, () => engine.generate(prompt(PROMPT), { maxTokens: out, ignoreEos: true })))
      if (!warmUp) rates.push((concurrent * out * 1000) / (performance.now() - start))
    })
    const probed = await machineRates(ranks)
    const timed = cells.filter(({ rates }) => rates.length > 0)
    const used = reachedRates(probed, timed.map(workOf))
    const rows = timed.map((cell): Row & { readonly rate: Sample } => ({
      model: cell.model,
      concurrent: cell.concurrent,
      rate: sampleOf(cell.rates) as Sample,
      computed: ((sampleOf(cell.rates) as Sample).median * (PROMPT + out)) / out,
      limit: (cell.concurrent * 1000) / floorMs(workOf(cell), used),
    }))
    await Promise.all(Object.values(engines).map((engine) => engine.close()))
    const of = (model: string, concurrent: number) => rows.find((r) => r.model === model && r.concurrent === concurrent)?.rate.median
    return {
      floor: `for one request the weights at ${rateText('read', probed, used)}, for many the multiply-adds at ${rateText('multiply', probed, used)} (${ranks} threads); computing the prompt is in the time and not in the floor`,
      method: `${ranks} ranks, prompts of ${PROMPT} random tokens without a common prefix, ${out} tokens out; all tokens out over the time until the last request ends.`,
      columns: [
        { key: 'model', label: 'model' },
        { key: 'concurrent', label: 'concurrent requests' },
        { key: 'rate', label: 'tokens/s', digits: 0 },
        { key: 'computed', label: 'with those of prompts', unit: 'tokens/s', digits: 0 },
        { key: 'limit', label: 'at the floor', unit: 'tokens/s', digits: 0 },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: 'Throughput by concurrent requests',
          kind: 'lines',
          x: { title: 'concurrent requests', log: true, ticks: [1, 4, 16, 64] },
          y: { title: 'tokens/s', log: true },
          points: rows.map(({ model, concurrent, rate }) => ({
            x: concurrent as number,
            ...plotted(rate),
            series: model as string,
          })),
          bound: 'limit',
          floor: rows.map(({ model, concurrent, limit }) => ({ x: concurrent as number, y: limit as number, series: model as string })),
        },
      ],
      answer: Object.keys(models).flatMap((model) => {
        const [one, best] = [of(model, 1), Math.max(...rows.filter((r) => r.model === model).map((r) => r.rate.median))]
        return one === undefined
          ? []
          : [`${model}: ${one.toFixed(0)} tokens/s for one request, at best ${best.toFixed(0)}: ${(best / one).toFixed(1)} times as many.`]
      }),
    }
  },
}
