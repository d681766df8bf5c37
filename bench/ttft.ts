// Time to the first token, by the prompt's length, with and without a cached prefix.
import { Engine } from '../src/index.js'
import { type Benchmark, interleave, oneRankCount, type Row } from './harness/benchmark.js'
import { floorMs, rateText, reachedRates } from './harness/floor.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { machineRates } from './probe.js'
import { prompts, TINY } from './traffic.js'

interface Cell {
  readonly length: number
  readonly prefix: 'none' | 'cached'
  readonly ms: number[]
}

/** Tokens at a prompt's end that are not cached, where the rest is. */
const OWN = 8

function seriesOf(prefix: string): string {
  return prefix === 'cached' ? 'prefix cached' : 'nothing cached'
}

export const ttft: Benchmark = {
  name: 'ttft',
  question: 'How long does the first token take, by length of the prompt, and when its prefix is cached?',
  supports: ['ranks'],
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
    const probed = { multiply: (await machineRates(ranks)).multiply }
    const timed = cells.filter(({ ms }) => ms.length > 0)
    const workOf = ({ length, prefix, ms }: Cell) => ({ operations: (prefix === 'cached' ? OWN : length) * 2 * parameters, ms })
    const used = reachedRates(probed, timed.map(workOf))
    const rows = timed.map((cell): Row & { readonly ms: Sample } => ({
      length: cell.length,
      prefix: cell.prefix,
      ms: sampleOf(cell.ms) as Sample,
      floor: floorMs(workOf(cell), used),
    }))
    const longest = Math.max(...rows.map((r) => r.length as number))
    const [miss, hit] = (['none', 'cached'] as const).map((prefix) => rows.find((r) => r.length === longest && r.prefix === prefix)?.ms.median)
    return {
      floor: `the multiply-adds of the tokens that are not cached at ${rateText('multiply', probed, used)} (${ranks} threads), without attention`,
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
          title: 'Time to the first token',
          kind: 'lines',
          x: { title: 'prompt tokens', log: true, ticks: lengths },
          y: { title: 'ms', log: true },
          points: rows.map(({ length, prefix, ms }) => ({
            x: length as number,
            ...plotted(ms),
            series: seriesOf(prefix as string),
          })),
          floor: rows.map(({ length, prefix, floor }) => ({ x: length as number, y: floor as number, series: seriesOf(prefix as string) })),
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
