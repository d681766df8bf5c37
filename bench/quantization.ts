// Formats of weights and cache: their cost in perplexity and their gain in speed.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { CacheFormat } from '../kernels/cache-format.js'
import { CACHE_FORMAT_NAMES, CACHE_FORMATS } from '../kernels/cache-formats.js'
import type { WeightFormat } from '../kernels/weight-format.js'
import { WEIGHT_FORMAT_NAMES } from '../kernels/weight-formats.js'
import { assetUrl } from '../src/assets.js'
import { Engine, OptionError } from '../src/index.js'
import { packedBytes, pretendCached } from '../src/testing.js'
import { type Benchmark, interleave, oneRankCount, type Row } from './harness/benchmark.js'
import { floorMs, rateText, reachedRates } from './harness/floor.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { benchModel } from './models.js'
import { machineRates } from './probe.js'
import { TINY } from './traffic.js'

const CACHES = CACHE_FORMAT_NAMES.filter((format) => CACHE_FORMATS[format].cpu)

interface Cell {
  readonly weights: WeightFormat
  readonly cache: CacheFormat
  perplexity: number | undefined
  bytes: number
  readonly short: number[]
  readonly long: number[]
}

const SHORT = 512

export const quantization: Benchmark = {
  name: 'quantization',
  question: 'What do formats of weights and cache cost in perplexity and gain in speed?',
  supports: ['ranks'],
  async run(context) {
    const ranks = oneRankCount(context)
    const tokens = fileURLToPath(assetUrl('test/fixtures/eval/genesis.bin'))
    if (!existsSync(tokens)) {
      throw new OptionError('OPTION_INVALID', {
        what: 'the evaluation tokens are not here',
        expected: tokens,
        actual: 'no such file',
        remedy: 'Run this benchmark in a checkout of the repository.',
      })
    }
    const model = context.quick ? TINY : await benchModel(context.folder, 'small', 'mlra_4', context.seed)
    const long = context.quick ? 896 : 65536
    const cells = WEIGHT_FORMAT_NAMES.flatMap((weights) =>
      CACHES.map((cache): Cell => ({ weights, cache, perplexity: undefined, bytes: 0, short: [], long: [] })),
    )
    await interleave(context, cells, async (cell, warmUp) => {
      const { weights, cache } = cell
      if (warmUp) {
        const tiny = await Engine.load(TINY, { ranks, weights, cache })
        cell.perplexity = (await tiny.perplexity(tokens, { firstToken: 512, ...(context.quick && { windows: 1 }) })).perplexity
        await tiny.close()
        return
      }
      const engine = await Engine.load(model, { ranks, weights, cache, maxContext: long + 128, cacheTokens: long + 128, maxRunning: 1 })
      const prompt = Array.from({ length: long }, (_, i) => (i * 7919 + 13) % engine.info.vocab)
      await pretendCached(engine, prompt)
      cell.bytes = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
      await engine.generate([...prompt.slice(0, SHORT), 1], { maxTokens: 8, ignoreEos: true })
      for (const [context, ms] of [
        [SHORT, cell.short],
        [long, cell.long],
      ] as const)
        ms.push(
          1000 /
            (await engine.generate([...prompt.slice(0, context), 1], { maxTokens: context > 10_000 ? 6 : 24, ignoreEos: true })).timings
              .tokensPerSecond,
        )
      await engine.close()
    })
    const probed = { read: (await machineRates(ranks)).read }
    const used = reachedRates(
      probed,
      cells.map(({ bytes, short }) => ({ bytes, ms: short })),
    )
    const base = cells.find((c) => c.weights === 'bf16' && c.cache === 'f32')?.perplexity
    const rows = cells
      .filter((cell) => cell.short.length > 0)
      .map((cell): Row & { readonly short: Sample; readonly long: Sample } => ({
        weights: cell.weights,
        cache: cell.cache,
        perplexity: cell.perplexity,
        change: base === undefined || cell.perplexity === undefined ? undefined : 100 * (cell.perplexity / base - 1),
        floor: floorMs({ bytes: cell.bytes }, used),
        short: sampleOf(cell.short) as Sample,
        long: sampleOf(cell.long) as Sample,
      }))
    const of = (weights: string, cache: string) => rows.find((r) => r.weights === weights && r.cache === cache)
    const [plain, eights, cached] = [of('bf16', 'f32'), of('int8', 'f32'), of('bf16', 'int8')]
    return {
      floor: `the weights read once at ${rateText('read', probed, used)} (${ranks} threads)`,
      method: `Perplexity: the embedded model on genesis.bin, authors' protocol${context.quick ? ', one window' : ''}. Speed: ${context.quick ? 'the same model' : "a model 'small' of random weights"}, ${ranks} ranks, ${SHORT} and ${long} cached tokens (random).`,
      columns: [
        { key: 'weights', label: 'weights' },
        { key: 'cache', label: 'cache' },
        { key: 'perplexity', label: 'perplexity', digits: 3 },
        { key: 'change', label: 'over bf16 and f32', unit: '%', digits: 2 },
        { key: 'floor', label: 'floor', unit: 'ms', digits: 2 },
        { key: 'short', label: `a token at ${SHORT}`, unit: 'ms', digits: 2 },
        { key: 'long', label: `at ${long}`, unit: 'ms', digits: 2 },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: `A token by formats of weights / cache, at ${SHORT} and ${long} cached tokens`,
          kind: 'bars',
          x: { title: 'weights / cache' },
          y: { title: 'ms a token' },
          points: rows.flatMap(({ weights, cache, short, long: longer }) =>
            [
              [short, `${SHORT} tokens`],
              [longer, `${long} tokens`],
            ].map(([ms, series]) => ({
              x: `${weights as string} / ${cache as string}`,
              ...plotted(ms as Sample),
              series: series as string,
            })),
          ),
        },
      ],
      answer:
        plain && eights && cached
          ? [
              `int8 weights change perplexity by ${(eights.change as number).toFixed(2)} % and take ${(eights.short.median / plain.short.median).toFixed(2)} of the time of bf16 at ${SHORT} tokens; an int8 cache changes it by ${(cached.change as number).toFixed(2)} % and takes ${(cached.long.median / plain.long.median).toFixed(2)} of the time of an f32 cache at ${long}.`,
            ]
          : [],
    }
  },
}
