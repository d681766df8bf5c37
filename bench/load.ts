// Loading of a checkpoint from a warm file cache, as published and converted.
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { convert, Engine } from '../src/index.js'
import { type Benchmark, interleave, oneRankCount, type Row } from './harness/benchmark.js'
import { floorMs, rateText, reachedRates } from './harness/floor.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { benchModel } from './models.js'
import { machineRates } from './probe.js'

interface Cell {
  readonly checkpoint: string
  readonly dir: string
  readonly ms: number[]
}

export const load: Benchmark = {
  name: 'load',
  question: 'How long does a checkpoint take to load, as published and converted?',
  supports: ['ranks'],
  async run(context) {
    const ranks = oneRankCount(context)
    const published = await benchModel(context.folder, context.quick ? 'tiny' : 'mid', 'mlra_4', context.seed)
    const cells: Cell[] = [{ checkpoint: 'as published, bf16', dir: published, ms: [] }]
    for (const weights of ['bf16', 'int8'] as const) {
      const dir = join(context.folder, `packed-${weights}`)
      await convert(published, dir, { weights })
      cells.push({ checkpoint: `converted, ${weights}`, dir, ms: [] })
    }
    await interleave(context, cells, async ({ dir, ms }, warmUp) => {
      const engine = await Engine.load(dir, { ranks, maxRunning: 4, cacheTokens: 4096 })
      await engine.close()
      if (!warmUp) ms.push(engine.info.loadMs)
    })
    const probed = { read: (await machineRates(1)).read }
    const timed = cells.filter(({ ms }) => ms.length > 0)
    const workOf = ({ dir, ms }: Cell) => ({ bytes: statSync(join(dir, 'model.safetensors')).size, ms })
    const used = reachedRates(probed, timed.map(workOf))
    const rows = timed.map((cell): Row & { readonly ms: Sample } => {
      const { bytes } = workOf(cell)
      const ms = sampleOf(cell.ms) as Sample
      return { checkpoint: cell.checkpoint, megabytes: bytes / 1e6, ms, rate: bytes / ms.median / 1e6, floor: floorMs({ bytes }, used) }
    })
    return {
      floor: `the file's bytes read once at ${rateText('read', probed, used)} (one thread); starting the threads is in the times`,
      method: `${ranks} ranks, model of ${context.quick ? 'size tiny' : 'size mid'}, file cache warm.`,
      columns: [
        { key: 'checkpoint', label: 'checkpoint' },
        { key: 'megabytes', label: 'file', unit: 'MB' },
        { key: 'ms', label: 'load', unit: 'ms', digits: 0 },
        { key: 'rate', label: 'GB/s', digits: 2 },
        { key: 'floor', label: 'floor', unit: 'ms' },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: 'Loading a checkpoint',
          kind: 'bars',
          x: { title: '' },
          y: { title: 'ms' },
          points: rows.map(({ checkpoint, ms }) => ({
            x: checkpoint as string,
            ...plotted(ms),
            series: 'load',
          })),
          floor: rows.map(({ checkpoint, floor }) => ({ x: checkpoint as string, y: floor as number, series: 'load' })),
        },
      ],
      answer: rows.map(({ checkpoint, ms, rate }) => `${checkpoint as string}: ${ms.median.toFixed(0)} ms (${(rate as number).toFixed(2)} GB/s).`),
    }
  },
}
