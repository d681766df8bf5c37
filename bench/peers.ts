// How fast is Tetrad beside llama.cpp on models of the same size? Each runs in a process of its own, in turn, so that a busy minute
// hits both. Decode is compared with llama.cpp's best thread count (1 here), prefill with 2 threads.
// With an MLRA-4 graph of models/tiny (.onnx), onnxruntime-node is timed as well, at a context of 512 and with 2 threads (its best).
// Usage: node dist/bench/peers.js <folder with node_modules/node-llama-cpp and onnxruntime-node> [rounds] [tiny.onnx]
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { synthesize } from '../src/index.js'
import { type GgufType, type LlamaShape, writeGguf } from './peers/write-gguf.js'

const folder = process.argv[2]
if (!folder || !existsSync(join(folder, 'node_modules/node-llama-cpp'))) {
  console.error('Install the peer first: npm i --ignore-scripts node-llama-cpp, in a folder of its own, and give that folder.')
  process.exit(1)
}
const rounds = Number(process.argv[3] ?? 5)
const onnx = process.argv[4]
const work = mkdtempSync(join(tmpdir(), 'tetrad-peers-'))
process.once('exit', () => rmSync(work, { recursive: true, force: true }))
process.once('SIGINT', () => process.exit(130))

const script = (name: string) => fileURLToPath(new URL(`./peers/${name}.js`, import.meta.url))
const run = (name: string, args: readonly (string | number)[]) => {
  const out = execFileSync(process.execPath, [script(name), ...args.map(String)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  return JSON.parse(out.trim().split('\n').at(-1) as string) as { tokensPerSecond: number; bytes?: number }
}
const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number
const spread = (values: readonly number[], digits: number) =>
  `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}..${Math.max(...values).toFixed(digits)})`

const SHAPES: Readonly<Record<string, LlamaShape>> = {
  tiny: { layers: 8, embed: 384, heads: 6, intermediate: 1024, vocab: 4096 },
  mid: { layers: 12, embed: 1024, heads: 16, intermediate: 3072, vocab: 8192 },
}
const models: Readonly<Record<string, string>> = { tiny: fileURLToPath(new URL('../../models/tiny', import.meta.url)), mid: join(work, 'mid') }
await synthesize(models.mid as string, { preset: 'mid', variant: 'mlra_4' })

console.log(`${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}; ${rounds} rounds, median (least..most)`)
console.log('floor: bytes of weights / memory bandwidth (npm run bench:matvec) for decode; arithmetic for prefill')
console.log('what                                Tetrad, 2 ranks       llama.cpp             ratio of tokens/s  ratio of GB/s of weights  target')
for (const [model, weights, type, kind, tokens, threads, target] of [
  ['tiny', 'bf16', 'f16', 'decode', 300, 1, '2.0 tokens/s'],
  ['mid', 'bf16', 'f16', 'decode', 96, 1, '1.5 GB/s'],
  ['mid', 'int8', 'q8_0', 'decode', 96, 1, '2.0 GB/s'],
  ['mid', 'bf16', 'f16', 'prefill', 512, 2, '0.45 tokens/s'],
  ['mid', 'int8', 'q8_0', 'prefill', 512, 2, '0.5 tokens/s'],
] as const satisfies readonly (readonly [string, string, GgufType, string, number, number, string])[]) {
  const file = join(work, `${model}-${type}.gguf`)
  const peerBytes = writeGguf(file, SHAPES[model] as LlamaShape, type)
  const ours: number[] = []
  const peers: number[] = []
  let bytes = 0
  for (let round = 0; round < rounds; round++) {
    peers.push(run('llama', [folder, file, kind, tokens, threads]).tokensPerSecond)
    const result = run('tetrad', [models[model] as string, kind, tokens, 2, weights])
    ours.push(result.tokensPerSecond)
    bytes = result.bytes ?? 0
  }
  const ratio = median(ours) / median(peers)
  const rates = kind === 'decode' ? ((ratio * bytes) / peerBytes).toFixed(2) : ''
  const digits = median(ours) < 200 ? 1 : 0
  const label = `${model} ${kind}, ${weights} / ${type}`
  console.log(
    [label.padEnd(34), spread(ours, digits).padEnd(20), spread(peers, digits).padEnd(20), ratio.toFixed(2).padEnd(17), rates.padEnd(24), target].join(
      '  ',
    ),
  )
  rmSync(file)
}

if (onnx) {
  for (const [weights, target] of [
    ['bf16', '3 tokens/s'],
    ['int8', '4 tokens/s'],
  ] as const) {
    const ours: number[] = []
    const peers: number[] = []
    for (let round = 0; round < rounds; round++) {
      peers.push(run('onnxruntime', [folder, onnx, 512, 2]).tokensPerSecond)
      ours.push(run('tetrad', [models.tiny as string, 'decode', 300, 2, weights]).tokensPerSecond)
    }
    const ratio = (median(ours) / median(peers)).toFixed(2)
    const cells = [
      `tiny decode, ${weights} / onnxruntime-node f32`.padEnd(34),
      spread(ours, 0).padEnd(20),
      spread(peers, 0).padEnd(20),
      ratio.padEnd(17),
    ]
    console.log([...cells, ''.padEnd(24), target].join('  '))
  }
}
