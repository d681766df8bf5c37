// How long until the first token, by length of the prompt, and when its prefix is cached?
import { Engine } from '../src/index.js'
import { type Benchmark, interleave, oneRankCount, type Row } from './harness/benchmark.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { machineRates } from './probe.js'
import { prompts, TINY } from './traffic.js'

interface Cell {
  readonly length: number
  readonly prefix: 'none' | 'cached'
  readonly ms: number[]
}

/** Tokens of a prompt that are its own where the rest is cached. */
const OWN = 8

export const ttft: Benchmark = {
  name: 'ttft',
  question: 'How long until the first token, by length of the prompt, and when its prefix is cached?',
  heeds: ['ranks'],
  async run(context) {
    const ranks = oneRankCount(context)
    const engine = await Engine.load(TINY, { ranks, maxRunning: 4, cacheTokens: 8192 })
    const { prompt } = prompts(context.seed)
    const lengths = context.quick ? [32, 128] : [16, 64, 256, 512, 960]
    const cells = lengths.flatMap((length) => (['none', 'cached'] as const).map((prefix): Cell => ({ length, prefix, ms: [] })))
    await interleave(context, cells, async ({ length, prefix, ms }, warmUp) => {
      const shared = prompt(length - OWN)
      if (prefix === 'cached') await engine.generate([...shared, ...prompt(OWN)], { maxTokens: 1, ignoreEos: true })
      const { timings } = await engine.generate([...shared, ...prompt(OWN)], { maxTokens: 1, ignoreEos: true })
      if (!warmUp) ms.push(timings.ttftMs)
    })
    const { parameters } = engine.info
    await engine.close()
    const { multiply: peak } = await machineRates(ranks)
    const rows = cells
      .filter(({ ms }) => ms.length > 0)
      .map(({ length, prefix, ms }): Row & { readonly ms: Sample } => ({
        length,
        prefix,
        ms: sampleOf(ms) as Sample,
        floor: ((prefix === 'cached' ? OWN : length) * 2 * parameters) / peak / 1e6,
      }))
    const longest = Math.max(...rows.map((r) => r.length as number))
    const [miss, hit] = (['none', 'cached'] as const).map((prefix) => rows.find((r) => r.length === longest && r.prefix === prefix)?.ms.median)
    return {
      floor: `the multiply-adds of the tokens that are not cached at ${peak.toFixed(0)} GFLOP/s (${ranks} threads), without attention`,
      method: `models/tiny, ${ranks} ranks, random prompts; cached: all but ${OWN} tokens were computed for another request before.`,
      columns: [
        { key: 'length', label: 'prompt tokens' },
        { key: 'prefix', label: 'prefix' },
        { key: 'ms', label: 'first token after', unit: 'ms' },
        { key: 'floor', label: 'floor', unit: 'ms' },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: 'Time to the first token; dashed grey: the floor',
          kind: 'lines',
          x: { title: 'prompt tokens', log: true, ticks: lengths },
          y: { title: 'ms', log: true },
          points: rows.map(({ length, prefix, ms }) => ({
            x: length as number,
            ...plotted(ms),
            series: prefix === 'cached' ? 'prefix cached' : 'nothing cached',
          })),
          floor: rows.map(({ length, prefix, floor }) => ({ x: length as number, y: floor as number, series: prefix as string })),
        },
      ],
      answer:
        miss !== undefined && hit !== undefined
          ? [
              `A prompt of ${longest} tokens has its first token after ${miss.toFixed(0)} ms, and after ${hit.toFixed(1)} ms where all but ${OWN} tokens are cached: ${(miss / hit).toFixed(0)} times sooner.`,
            ]
          : [],
    }
  },
}
