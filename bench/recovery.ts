// Cost of a rank's death for the running requests.
import { Engine } from '../src/index.js'
import { type FaultKind, injectFault } from '../src/testing.js'
import { type Benchmark, interleave, type Row } from './harness/benchmark.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { prompts, TINY } from './traffic.js'

interface Cell {
  readonly ranks: 1 | 2 | 4
  readonly kind: FaultKind | 'none'
  readonly recovery: number[]
  readonly request: number[]
}

/** A rank that hangs is noticed after this time. */
const STEP_DEADLINE_MS = 500

export const recovery: Benchmark = {
  name: 'recovery',
  question: 'What does the death of a rank cost the running requests?',
  supports: ['ranks'],
  async run(context) {
    const counts = context.ranks ?? (context.quick ? [2] : [1, 2, 4])
    const engines = new Map<number, Engine>()
    for (const ranks of counts)
      engines.set(ranks, await Engine.load(TINY, { ranks, maxRunning: 8, cacheTokens: 4096, maxRestarts: 1000, stepDeadlineMs: STEP_DEADLINE_MS }))
    const restarts = new Map<Engine, number[]>()
    for (const engine of engines.values()) {
      const list: number[] = []
      restarts.set(engine, list)
      engine.on('restart', ({ recoveryMs }) => list.push(recoveryMs))
    }
    const { prompt } = prompts(context.seed)
    const cells = counts.flatMap((ranks) =>
      (['none', 'throw', 'exit', 'hang'] as const).map((kind): Cell => ({ ranks, kind, recovery: [], request: [] })),
    )
    await interleave(context, cells, async ({ ranks, kind, recovery, request }, warmUp) => {
      const engine = engines.get(ranks) as Engine
      const start = performance.now()
      const running = Promise.all(Array.from({ length: 4 }, () => engine.generate(prompt(32), { maxTokens: 48, ignoreEos: true })))
      if (kind !== 'none') injectFault(engine, { rank: ranks - 1, kind, stage: 'all-reduce of the MLP' })
      await running
      const ms = performance.now() - start
      if (warmUp) return
      request.push(ms)
      const last = restarts.get(engine)?.at(-1)
      if (kind !== 'none' && last !== undefined) recovery.push(last)
    })
    for (const engine of engines.values()) await engine.close()
    const timed = cells.filter(({ request }) => request.length > 0)
    const plain = (ranks: number) => sampleOf(timed.find((c) => c.ranks === ranks && c.kind === 'none')?.request ?? [])?.median
    const rows = timed.map(({ ranks, kind, recovery, request }): Row & { readonly request: Sample } => ({
      ranks,
      fault: kind,
      recovery: sampleOf(recovery),
      request: sampleOf(request) as Sample,
      floor: plain(ranks),
    }))
    const exits = rows.filter((r) => r.fault === 'exit')
    return {
      floor: 'the same four requests without a fault, in turn',
      method: `models/tiny, 4 requests of 32 tokens in and 48 out; the last rank fails once at the all-reduce of the MLP. Recovery: from noticing it until all ranks are ready. A rank that hangs is noticed after stepDeadlineMs, ${STEP_DEADLINE_MS} here (30000 by default). All requests end with all of their tokens.`,
      columns: [
        { key: 'ranks', label: 'ranks' },
        { key: 'fault', label: 'fault' },
        { key: 'recovery', label: 'recovery', unit: 'ms', digits: 0 },
        { key: 'request', label: 'until the last request ends', unit: 'ms', digits: 0 },
        { key: 'floor', label: 'without a fault', unit: 'ms', digits: 0 },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: 'Four requests, one of the ranks fails once',
          kind: 'bars',
          x: { title: 'fault' },
          y: { title: 'ms until the last request ends' },
          points: rows.map(({ ranks, fault, request }) => ({
            x: fault as string,
            ...plotted(request),
            series: `${ranks as number} rank${ranks === 1 ? '' : 's'}`,
          })),
        },
      ],
      answer: exits.map(
        ({ ranks, recovery, request, floor }) =>
          `At ${ranks as number} ranks a dead thread is replaced in ${(recovery as Sample | undefined)?.median.toFixed(0)} ms; its requests take ${(request.median - (floor as number)).toFixed(0)} ms longer.`,
      ),
    }
  },
}
