// What latent heads that can be split gain over MLA, GLA and GQA: time and cached bytes of a decode step by variant, ranks and
// context, for models of equal parameter counts. Long contexts are random cached values: neither time nor bytes depend on them.
import { Engine, type EngineOptions, inspect, MemoryError } from '../src/index.js'
import { attentionOperations, exchangedBytes, packedBytes, pretendCached, readCounters } from '../src/testing.js'
import { PAGE_TOKENS, type Partition, SHARDS } from '../workers/protocol.js'
import { type Benchmark, interleave } from './harness/benchmark.js'
import { benchModel, compared } from './models.js'
import { RateMeter } from './rate-meter.js'
import { type Cell, outcome, ratesOfCells, rowOf } from './scaling-outcome.js'

const DEFAULTS = {
  wasm: {
    size: 'small',
    variants: ['mlra_4', 'mlra_2', 'mla', 'gla_2', 'gla_4', 'gqa', 'mqa', 'mha', 'mla-sequence', 'gqa-sequence', 'mqa-sequence'],
    ranks: [1, 2, 4],
    contexts: [1024, 4096, 16384, 65536, 131072, 524288, 2097152],
    cache: 'bf16',
  },
  gpu: { size: '2.9b', variants: ['mlra_4', 'mla', 'gla_2', 'gqa'], ranks: [1], contexts: [1024, 16384, 131072, 524288], cache: 'f16' },
  quick: { size: 'tiny', variants: ['mlra_4', 'mla', 'gqa', 'mla-sequence'], ranks: [1, 2, 4], contexts: [256, 1024], cache: 'f32' },
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
            exchanged: 0,
            memory: 0,
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
      const { variant: model, partition } = compared(variant)
      const dir = await benchModel(context.folder, size, model, context.seed)
      const options: EngineOptions = {
        ranks,
        cache,
        partition,
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
      // Room beside the context: what earlier cells left cached must not displace its pages, in any class of pages.
      const tokens = longest + 1024
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

/** Of the cached rows that `steps` steps after a context read, what the fullest rank reads, over its share of a long context. */
function fullestShare(partition: Partition, ranks: number, context: number, steps: number): number {
  if (partition === 'heads') return 1
  const shards = SHARDS / ranks
  let [all, own] = [0, 0]
  for (let length = context + 1; length <= context + steps; length++) {
    all += length
    for (let page = 0; page * PAGE_TOKENS < length; page++) if (page % SHARDS < shards) own += Math.min(PAGE_TOKENS, length - page * PAGE_TOKENS)
  }
  return (own / all) * ranks
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
  cell.predicted = predicted * fullestShare(engine.info.partition, engine.info.ranks, cell.context, tokens.length)
  cell.exchanged = exchangedBytes(engine)
  cell.memory = predicted * engine.info.cacheTokens
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
