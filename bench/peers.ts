// Tetrad beside llama.cpp (node-llama-cpp) and onnxruntime-node. Every run is a process of its own, in turn. The peers are installed
// into a folder of their own: the package does not depend on them.
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Engine, OptionError } from '../src/index.js'
import { type BenchContext, type Benchmark, interleave, type Row } from './harness/benchmark.js'
import { floorMs, rateText, reachedRates } from './harness/floor.js'
import { isTrusted, type Sample, sampleOf } from './harness/sample.js'
import { benchModel } from './models.js'
import { type GgufType, type LlamaShape, writeGguf } from './peers/write-gguf.js'
import { writeOnnx } from './peers/write-onnx.js'
import { machineRates } from './probe.js'
import { TINY } from './traffic.js'

const PACKAGES = ['node-llama-cpp@3.22.1', 'onnxruntime-node@1.30.0', 'onnx-proto@8.0.1', 'autocannon@8.0.0']

/** Llamas with as many parameters as the models that they are compared with. */
const LLAMAS: Readonly<Record<'tiny' | 'mid', LlamaShape>> = {
  tiny: { layers: 8, embed: 384, heads: 6, intermediate: 1024, vocab: 4096 },
  mid: { layers: 12, embed: 1024, heads: 16, intermediate: 3072, vocab: 8192 },
}

/** llama.cpp's decode is fastest with one thread on two cores, and its prefill with two. */
const LLAMA_RUNS = [
  { model: 'tiny', weights: 'bf16', type: 'f16', kind: 'decode', tokens: 300, threads: 1 },
  { model: 'tiny', weights: 'int8', type: 'q8_0', kind: 'decode', tokens: 300, threads: 1 },
  { model: 'mid', weights: 'bf16', type: 'f16', kind: 'decode', tokens: 96, threads: 1 },
  { model: 'mid', weights: 'int8', type: 'q8_0', kind: 'decode', tokens: 96, threads: 1 },
  { model: 'mid', weights: 'int4', type: 'q4_0', kind: 'decode', tokens: 96, threads: 1 },
  { model: 'mid', weights: 'int4', type: 'q4_k_m', kind: 'decode', tokens: 96, threads: 1 },
  { model: 'mid', weights: 'bf16', type: 'f16', kind: 'prefill', tokens: 512, threads: 2 },
  { model: 'mid', weights: 'int8', type: 'q8_0', kind: 'prefill', tokens: 512, threads: 2 },
  { model: 'mid', weights: 'int4', type: 'q4_0', kind: 'prefill', tokens: 512, threads: 2 },
  { model: 'mid', weights: 'int4', type: 'q4_k_m', kind: 'prefill', tokens: 512, threads: 2 },
] as const satisfies readonly { type: GgufType; model: keyof typeof LLAMAS; [key: string]: unknown }[]

const ONNX_CONTEXT = 512

interface Cell {
  readonly what: string
  readonly peer: string
  readonly own: () => Promise<Result>
  readonly other: () => Promise<Result>
  readonly ours: number[]
  readonly theirs: number[]
  /** Bytes of weights that a token reads, of Tetrad's model and of the peer's. */
  bytes: number
  readonly peerBytes: number
}

interface Result {
  readonly tokensPerSecond: number
  readonly bytes?: number
  readonly logits?: readonly number[]
}

const run = promisify(execFile)

/** Runs one of our scripts, which prints a line of JSON at its end. */
async function script(name: string, args: readonly (string | number)[]): Promise<Result> {
  const file = fileURLToPath(new URL(`./peers/${name}.js`, import.meta.url))
  const { stdout } = await run(process.execPath, [file, ...args.map(String)], { maxBuffer: 64 << 20 })
  return JSON.parse(stdout.trim().split('\n').at(-1) as string) as Result
}

export const peers: Benchmark = {
  name: 'peers',
  question: 'How fast is Tetrad beside llama.cpp and onnxruntime-node?',
  supports: ['peers'],
  async run(context) {
    const folder = await installedPeers(context)
    const mid = context.quick ? TINY : await benchModel(context.folder, 'mid', 'mlra_4', context.seed)
    const llama = LLAMA_RUNS.filter(({ model, kind }) => !context.quick || (model === 'tiny' && kind === 'decode')).map(
      ({ model, weights, type, kind, tokens, threads }): Cell => {
        const file = join(context.folder, `${model}-${type}.gguf`)
        const peerBytes = existsSync(file) ? (sizes.get(file) ?? 0) : writeGguf(file, LLAMAS[model], type)
        sizes.set(file, peerBytes)
        return {
          what: `${model} ${kind}, ${weights}`,
          peer: `llama.cpp ${type}, ${threads} thread${threads > 1 ? 's' : ''}`,
          own: () => script('tetrad', [model === 'tiny' ? TINY : mid, kind, tokens, 2, weights]),
          other: () => script('llama', [folder, file, kind, tokens, threads]),
          ours: [],
          theirs: [],
          bytes: 0,
          peerBytes,
        }
      },
    )
    const graphs = [{ model: 'tiny', dir: TINY }, ...(context.quick ? [] : [{ model: 'mid', dir: mid }])]
    const onnx: Cell[] = []
    const largestDifferences: number[] = []
    for (const { model, dir } of graphs) {
      const file = join(context.folder, `${model}.onnx`)
      const { layers, latents, rope } = await writeOnnx(file, dir, folder)
      const time = () => script('onnxruntime', [folder, file, layers, latents, rope, ONNX_CONTEXT, 2])
      largestDifferences.push(await difference(dir, (await time()).logits ?? []))
      for (const weights of ['bf16', 'int8'] as const) {
        onnx.push({
          what: `${model} decode, ${weights}`,
          peer: 'onnxruntime-node f32, the same weights, 2 threads',
          own: () => script('tetrad', [dir, 'decode', model === 'tiny' ? 300 : 96, 2, weights]),
          other: time,
          ours: [],
          theirs: [],
          bytes: 0,
          peerBytes: 0,
        })
      }
    }
    const cells = [...llama, ...onnx]
    await interleave(context, cells, async (cell, warmUp) => {
      const theirs = await cell.other()
      const ours = await cell.own()
      cell.bytes = ours.bytes ?? 0
      if (warmUp) return
      cell.theirs.push(theirs.tokensPerSecond)
      cell.ours.push(ours.tokensPerSecond)
    })
    for (const { model } of graphs) rmSync(join(context.folder, `${model}.onnx`), { force: true })
    const probed = await machineRates(2)
    const timed = cells.filter(({ ours, theirs }) => ours.length > 0 && theirs.length > 0)
    // Of a token: its weights are read in decoding. Prefill reads them once for many tokens, and has no floor here.
    const workOf = ({ what, bytes, ours }: Cell) => ({ ...(what.includes('decode') && { bytes }), ms: ours.map((rate) => 1000 / rate) })
    const used = reachedRates({ read: probed.read }, timed.map(workOf))
    const rows = timed.map((cell): Row & { readonly ours: Sample; readonly theirs: Sample; readonly ratio: number } => {
      const { what, peer, bytes, peerBytes } = cell
      const [mine, other] = [sampleOf(cell.ours) as Sample, sampleOf(cell.theirs) as Sample]
      const ratio = mine.median / other.median
      const decode = what.includes('decode')
      return {
        what,
        peer,
        ours: mine,
        theirs: other,
        ratio,
        bytesRatio: decode && peerBytes > 0 ? (ratio * bytes) / peerBytes : undefined,
        limit: decode ? 1000 / floorMs({ bytes }, used) : undefined,
      }
    })
    return {
      floor: `for decoding the weights at ${rateText('read', probed, used)} (2 threads); none for prefill`,
      method: `Tetrad at 2 ranks; ${PACKAGES.join(', ')}; every run in a process of its own, peers and Tetrad in turn, Tetrad after a second of generating. llama.cpp runs Llamas of as many parameters; onnxruntime runs the same checkpoint at ${ONNX_CONTEXT} cached tokens, as a graph whose logits after one token differ from Tetrad's by at most ${largestDifferences.map((d) => d.toExponential(1)).join(' and ')}.`,
      columns: [
        { key: 'what', label: 'what' },
        { key: 'peer', label: 'peer' },
        { key: 'ours', label: 'Tetrad, tokens/s', digits: 0 },
        { key: 'theirs', label: 'peer, tokens/s', digits: 0 },
        { key: 'ratio', label: 'Tetrad over peer', digits: 2 },
        { key: 'bytesRatio', label: 'in GB/s of weights', digits: 2 },
        { key: 'limit', label: 'at the floor', unit: 'tokens/s', digits: 0 },
      ],
      rows,
      pictures: [
        {
          name: '',
          title: 'Speed of Tetrad at 2 ranks over that of its peers',
          kind: 'bars',
          x: { title: '' },
          y: { title: 'times as fast' },
          reference: { value: 1, label: 'as fast as the peer' },
          points: rows.map(({ what, peer, ratio, ours, theirs }) => ({
            x: `${what as string} | ${(peer as string).split(' ')[0]}`,
            y: ratio,
            series: 'ratio',
            trusted: isTrusted(ours) && isTrusted(theirs),
          })),
        },
      ],
      answer: [
        ...(rows.some((r) => r.ratio >= 1)
          ? [
              `Faster: ${rows
                .filter((r) => r.ratio >= 1)
                .map((r) => `${r.what as string} than ${r.peer as string} (${r.ratio.toFixed(2)})`)
                .join('; ')}.`,
            ]
          : []),
        ...(rows.some((r) => r.ratio < 1)
          ? [
              `Slower: ${rows
                .filter((r) => r.ratio < 1)
                .map((r) => `${r.what as string} than ${r.peer as string} (${r.ratio.toFixed(2)})`)
                .join('; ')}.`,
            ]
          : []),
      ],
    }
  },
}

/** Bytes of weights of the files already written, by path. */
const sizes = new Map<string, number>()

async function difference(dir: string, logits: readonly number[]): Promise<number> {
  const engine = await Engine.load(dir, { ranks: 1, weights: 'f32', maxRunning: 1, cacheTokens: 64 })
  const own = await engine.logits([5])
  await engine.close()
  return own.reduce((most, v, i) => Math.max(most, Math.abs(v - (logits[i] ?? Number.NaN))), 0)
}

/** Folder with the peers, installed if no folder is given. Throws OptionError if the given one lacks packages. */
export async function installedPeers({ peers: given, folder, signal }: BenchContext): Promise<string> {
  if (given !== undefined) {
    const missing = PACKAGES.map((p) => p.slice(0, p.lastIndexOf('@'))).filter((p) => !existsSync(join(given, 'node_modules', p)))
    if (missing.length === 0) return given
    throw new OptionError('OPTION_INVALID', {
      what: 'the folder of peers lacks packages',
      expected: PACKAGES.join(', '),
      actual: `${missing.join(', ')} missing in ${given}`,
      remedy: 'Omit --peers: the packages are installed into a temporary folder then.',
    })
  }
  const dir = join(folder, 'peers')
  mkdirSync(dir)
  writeFileSync(join(dir, 'package.json'), '{"private":true}')
  console.error(`installing ${PACKAGES.join(', ')} in ${dir}`)
  await run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...PACKAGES], { cwd: dir, signal })
  return dir
}
