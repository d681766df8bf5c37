// Predicts the time of a step at longer contexts and on more devices than this machine has. The model is calibrated on one rank up to
// 16 K tokens and checked on the other cells that `scaling` measured. This benchmark measures nothing itself.
import { OptionError } from '../src/index.js'
import type { AttentionShape, RankCount } from '../workers/protocol.js'
import type { Benchmark, Outcome, Row } from './harness/benchmark.js'
import { isSample } from './harness/sample.js'
import { median } from './measure.js'
import { attentionInstructions } from './model/attention-work.js'
import { type Calibration, calibrate, calibrateBase, predict, type RankEffect } from './model/step-time.js'
import { benchShape, compared } from './models.js'
import type { Rates } from './rate-meter.js'
import type { ScalingRow } from './scaling-outcome.js'

type Use = 'calibration' | 'held out' | 'predicted'

interface Line extends Row {
  readonly variant: string
  readonly ranks: number
  readonly context: number
  readonly use: Use
  readonly measured: number | undefined
  readonly predicted: number
  readonly error: number | undefined
}

const MAX_CALIBRATION = 16384
const LONGER = [262144, 1048576, 2097152]
/** Milliseconds of an all-reduce of a few KB between devices that are linked: NVIDIA's nccl-tests, 8 H100 with NVLink, are at 0.02 to 0.04. */
const LINK_MS = 0.03

export const prediction: Benchmark = {
  name: 'prediction',
  question: 'How long would a step take at longer contexts and on more devices, and how far can that be trusted?',
  supports: ['backend', 'adapter'],
  async run(context) {
    const scaling = await context.earlier('scaling')
    const collectives = await context.earlier('collectives')
    const needed = context.backend === 'gpu' ? { scaling } : { scaling, collectives }
    const absent = Object.entries(needed).find(([, result]) => result === undefined)?.[0]
    if (absent || !scaling?.facts) throw missing(Object.keys(needed).join(' and '), absent ?? 'scaling')
    const rows = scaling.rows as readonly ScalingRow[]
    const effectOf =
      context.backend === 'gpu'
        ? gpuEffect(scaling.facts.size as string)
        : cpuEffect(scaling.facts.size as string, rows, scaling.facts.rates as Rates, collectives as Outcome)
    return predictions(rows, scaling.facts.rates as Rates, effectOf, context.backend === 'gpu')
  },
}

function missing(what: string, first: string): OptionError {
  return new OptionError('OPTION_INVALID', {
    what: 'the prediction needs results of other benchmarks',
    expected: `a result of ${what} for this machine and backend`,
    actual: 'none',
    remedy: `Run npx tetrad bench ${first} first.`,
  })
}

type EffectOf = (variant: string, ranks: number) => RankEffect

/**
 * Ranks are threads of one machine. Probes measured how much faster several threads are; the kernels' instructions tell how much more
 * work several ranks do together; the collectives benchmark measured what an exchange costs.
 */
function cpuEffect(size: string, rows: readonly ScalingRow[], { read, multiply }: Rates, collectives: Outcome): EffectOf {
  const latency = (ranks: number) => {
    if (ranks === 1) return 0
    const row = collectives.rows.find((r) => r.operation === 'all-gather' && r.ranks === ranks && r.bytes === 4096 && r.load === 'ranks at work')
    if (!isSample(row?.us)) throw missing(`the collectives benchmark at ${ranks} ranks`, 'collectives')
    return Math.max(0, row.us.median - (row.floor as number)) / 1000
  }
  const rate = (of: Rates['read'], ranks: number) => of[ranks as 1] ?? 1
  return (variant, ranks) => {
    const count = rows.find((r) => r.variant === variant && r.ranks === ranks)?.collectives
    const { variant: model, partition } = compared(variant)
    const { attention } = benchShape(size, model)
    // Cut along the sequence, each has all heads. Ranks that share the heads of a latent each load its rows, and use them for fewer heads.
    const more = partition === 'sequence' ? 1 : attentionInstructions(attention, ranks as RankCount) / attentionInstructions(attention, 1)
    return {
      weights: rate(read, ranks) / rate(read, 1),
      attention: rate(multiply, ranks) / rate(multiply, 1) / more,
      collectives: ranks === 1 ? 0 : ((count as number | undefined) ?? 0),
      collectiveMs: latency(ranks),
    }
  }
}

/** Each rank has a device of its own: it reads its share of the weights, and of the cache what the fullest rank holds. */
function gpuEffect(size: string): EffectOf {
  return (variant, devices) => {
    const { layers, attention } = benchShape(size, variant)
    return {
      weights: devices,
      attention: cachedOf(attention, 1) / cachedOf(attention, devices),
      // Two all-reduces a layer, and the logits.
      collectives: devices === 1 ? 0 : 2 * layers + 1,
      collectiveMs: LINK_MS,
    }
  }
}

/** Cached values of a token and layer on the fullest of several devices, which share whole streams; Tetrad itself has at most four ranks. */
function cachedOf({ streams, stream, sharedRopeDim, factors }: AttentionShape, devices: number): number {
  if (factors)
    throw new OptionError('OPTION_INVALID', {
      what: 'tpa is not predicted',
      expected: 'another variant',
      actual: 'tpa',
      remedy: 'Run scaling without tpa.',
    })
  return Math.ceil(streams / devices) * stream.width + sharedRopeDim
}

function described(gpu: boolean): Pick<Outcome, 'floor' | 'method' | 'columns'> {
  return {
    floor: 'none: nothing is measured here; the model is in bench/model/step-time.ts',
    method: `A line for each variant through its cells at 1 rank up to ${MAX_CALIBRATION} tokens${gpu ? ', its slope the bytes of a cached token at the rate at which a kernel reads' : ''}; ${
      gpu
        ? `on several devices each reads its share of the weights and the cached rows of the fullest rank, and two all-reduces a layer of ${LINK_MS} ms each (an assumption: devices linked as by NCCL over NVLink; Tetrad's own go through host memory)`
        : 'for more ranks the rates of reading and multiplying are those that probes measured for as many threads, attention is as much more work as the instructions of its kernels (tiles of fewer heads reuse less), and every collective takes what the collectives benchmark measured between ranks that compute'
    }. Held out: measured, and not used for it.`,
    columns: [
      { key: 'variant', label: 'variant' },
      { key: 'ranks', label: gpu ? 'devices' : 'ranks' },
      { key: 'context', label: 'context' },
      { key: 'use', label: 'used for' },
      { key: 'measured', label: 'measured', unit: 'ms', digits: 2 },
      { key: 'predicted', label: 'by the model', unit: 'ms', digits: 2 },
      { key: 'error', label: 'error', unit: '%', digits: 0 },
    ],
  }
}

function predictions(rows: readonly ScalingRow[], rates: Rates, effectOf: EffectOf, gpu: boolean): Outcome {
  const timed = rows.filter((r) => r.ms !== undefined)
  const variants = [...new Set(timed.map((r) => r.variant))]
  const read = rates.read[1] ?? 1
  const lines: Line[] = []
  const line = (calibration: Calibration, ranks: number, context: number, use: Use, measured: number | undefined): Line => {
    const predicted = predict(calibration, context, effectOf(calibration.variant, ranks))
    return {
      variant: calibration.variant,
      ranks,
      context,
      use,
      measured,
      predicted,
      error: measured === undefined ? undefined : 100 * (predicted / measured - 1),
    }
  }
  for (const variant of variants) {
    const own = timed.filter((r) => r.variant === variant)
    const known = own.filter((r) => r.ranks === 1 && r.context <= MAX_CALIBRATION)
    const cells = known.map((r) => ({ context: r.context, ms: r.ms?.median as number }))
    const weightMs = ((own[0]?.weightBytes as number) ?? 0) / read / 1e6
    const calibration = gpu
      ? calibrateBase(variant, cells, weightMs, ((known[0]?.counted as number) ?? 0) / read / 1e6)
      : calibrate(variant, cells, weightMs)
    if (!calibration) continue
    for (const row of own) lines.push(line(calibration, row.ranks, row.context, known.includes(row) ? 'calibration' : 'held out', row.ms?.median))
    const most = Math.max(...own.map((r) => r.context))
    const counts = gpu ? [1, 2, 4, 8] : [...new Set(own.map((r) => r.ranks))]
    const contexts = [...new Set([...(gpu ? own.map((r) => r.context) : []), ...LONGER])].sort((a, b) => a - b)
    for (const ranks of counts)
      for (const context of contexts)
        if (!own.some((r) => r.ranks === ranks && r.context === context) && (context > most || gpu))
          lines.push(line(calibration, ranks, context, 'predicted', undefined))
  }
  const errors = lines.filter((l) => l.use === 'held out').map((l) => Math.abs(l.error as number))
  if (lines.length === 0)
    return {
      ...described(gpu),
      rows: [],
      pictures: [],
      answer: ['No variant became slower with its context: the times are too noisy to calibrate the model.'],
    }
  const verdict =
    errors.length === 0
      ? []
      : [
          `Over ${errors.length} held-out cells the error is ${median(errors).toFixed(0)} % at the median and ${Math.max(...errors).toFixed(0)} % at worst (targets: 15 and 30).`,
        ]
  const at = (variant: string, ranks: number, context: number) =>
    lines.find((l) => l.variant === variant && l.ranks === ranks && l.context === context)?.predicted
  const furthest = Math.max(...lines.map((l) => l.context))
  const most = Math.max(...lines.map((l) => l.ranks))
  const [mlra, mla] = [at('mlra_4', Math.min(4, most), furthest), at('mla', Math.min(4, most), furthest)]
  return {
    ...described(gpu),
    rows: lines,
    pictures: [
      {
        name: '',
        title: 'Time of a decode step, measured and predicted',
        kind: 'lines',
        x: { title: 'cached tokens', log: true, ticks: [1024, 16384, 131072, 2097152] },
        y: { title: 'ms a token', log: true },
        points: lines.map(({ variant, ranks, context, use, measured, predicted }) => ({
          x: context,
          y: use === 'predicted' ? predicted : (measured as number),
          series: variant,
          facet: `${ranks} ${gpu ? 'device' : 'rank'}${ranks === 1 ? '' : 's'}`,
          predicted: use === 'predicted',
        })),
      },
    ],
    answer: [
      ...verdict,
      ...(mlra !== undefined && mla !== undefined
        ? [
            `Predicted at ${Math.min(4, most)} ${gpu ? 'devices' : 'ranks'} and ${furthest} tokens: MLRA-4 ${mlra.toFixed(1)} ms a token, MLA ${mla.toFixed(1)}: ${(mla / mlra).toFixed(2)} times.`,
          ]
        : []),
    ],
  }
}
