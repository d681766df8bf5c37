// Share of the machine's memory bandwidth at which weights stream while decoding. In turn with it, as many threads read the same
// bytes: in a WebAssembly loop, and natively (memchr).
// Usage: node dist/bench/diagnostics/bandwidth.js [rounds]
import { Engine } from '../../src/index.js'
import { packedBytes } from '../../src/testing.js'
import { inTurn, machine, median, midModel, spread, table, temporaryFolder } from '../measure.js'
import { Probe } from '../probe.js'

const rounds = Number(process.argv[2] ?? 7)
const TOKENS = 48
const dir = await midModel(temporaryFolder())
console.log(`${machine()}; ${rounds} rounds, median (p10..p90)`)
console.log('floor: the read loop over the bytes of weights of a token')
const rows = [['mid, weights', 'ranks', 'GB/s of weights', 'wasm read', 'native read', 'share of wasm read', 'tokens/s']]
for (const weights of ['bf16', 'int8'] as const) {
  for (const ranks of [1, 2] as const) {
    const engine = await Engine.load(dir, { ranks, weights, maxRunning: 4 })
    const bytes = packedBytes(engine).shards.reduce((a, b) => a + b, 0)
    const probe = new Probe(ranks, bytes)
    const results = await inTurn(rounds, {
      tetrad: async () => (await engine.generate([5, 6, 7], { maxTokens: TOKENS, ignoreEos: true })).timings.tokensPerSecond,
      wasm: () => probe.rate('wasm read'),
      native: () => probe.rate('native read'),
    })
    const rates = results.tetrad.map((r) => (r * bytes) / 1e9)
    const share = `${((median(rates) / median(results.wasm)) * 100).toFixed(0)} %`
    rows.push([weights, String(ranks), spread(rates), spread(results.wasm), spread(results.native), share, spread(results.tetrad)])
    await probe.close()
    await engine.close()
  }
}
console.log(table(rows))
