// What do many requests at once gain? Weights are read once for all of them; from a few on arithmetic binds.
import { Engine } from '../src/index.js'
import { packedBytes } from '../src/testing.js'
import { type Benchmark, interleave, oneRankCount, type Row } from './harness/benchmark.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { benchModel } from './models.js'
import { machineRates } from './probe.js'
import { prompts, TINY } from './traffic.js'

interface Cell {
  readonly model: string
  readonly engine: Engine
  readonly concurrent: number
  readonly rates: number[]
}

export const throughput: Benchmark = {
  name: 'throughput',
  question: 'How many tokens a second does an engine make for 1 to 64 requests at once?',
  heeds: ['ranks'],
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
    await interleave(context, cells, async ({ engine, concurrent, rates, model }, warmUp) => {
      const tokens = model === 'mid' && concurrent > 4 ? out / 4 : out
      const start = performance.now()
      await Promise.all(Array.from({ length: concurrent }, () => engine.generate(prompt(32), { maxTokens: tokens, ignoreEos: true })))
      if (!warmUp) rates.push((concurrent * tokens * 1000) / (performance.now() - start))
    })
    const { read, multiply: peak } = await machineRates(ranks)
    const rows = cells
      .filter(({ rates }) => rates.length > 0)
      .map(({ model, engine, concurrent, rates }): Row & { readonly rate: Sample } => {
        const bytes = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
        const stepMs = Math.max(bytes / read / 1e6, (concurrent * 2 * engine.info.parameters) / peak / 1e6)
        return { model, concurrent, rate: sampleOf(rates) as Sample, most: (concurrent * 1000) / stepMs }
      })
    await Promise.all(Object.values(engines).map((engine) => engine.close()))
    const of = (model: string, concurrent: number) => rows.find((r) => r.model === model && r.concurrent === concurrent)?.rate.median
    return {
      floor: `for one request the weights at ${read.toFixed(0)} GB/s, for many the multiply-adds at ${peak.toFixed(0)} GFLOP/s (${ranks} threads); the prompt's own work is in the time and not in the floor`,
      method: `${ranks} ranks, prompts of 32 random tokens that share nothing, ${out} tokens out (mid from 16 requests on: a quarter of that); all tokens over the time until the last request ended.`,
      columns: [
        { key: 'model', label: 'model' },
        { key: 'concurrent', label: 'requests at once' },
        { key: 'rate', label: 'tokens/s', digits: 0 },
        { key: 'most', label: 'at the floor, tokens/s', digits: 0 },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: 'Throughput by requests at once; dashed grey: at the floor',
          kind: 'lines',
          x: { title: 'requests at once', log: true, ticks: [1, 4, 16, 64] },
          y: { title: 'tokens/s', log: true },
          points: rows.map(({ model, concurrent, rate }) => ({
            x: concurrent as number,
            ...plotted(rate),
            series: model as string,
          })),
          floor: rows.map(({ model, concurrent, most }) => ({ x: concurrent as number, y: most as number, series: model as string })),
        },
      ],
      answer: Object.keys(models).flatMap((model) => {
        const [one, most] = [of(model, 1), Math.max(...rows.filter((r) => r.model === model).map((r) => r.rate.median))]
        return one === undefined
          ? []
          : [`${model}: ${one.toFixed(0)} tokens/s for one request, ${most.toFixed(0)} at best, ${(most / one).toFixed(1)} times that.`]
      }),
    }
  },
}
