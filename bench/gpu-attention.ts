// How fast is flash decoding on this card, for a rank of MLRA-4 and for MLA, the authors' shapes with an f16 cache, and how far from
// reading the bytes? Checked against float64 before it is timed.
// Usage: node dist/bench/gpu-attention.js [runs] [adapter]
import { AttentionCase, type AttentionWidths } from './gpu-attention-case.js'
import { gpuLine, openGpu, timePasses } from './gpu-measure.js'
import { median, spread, table } from './measure.js'

const runs = Number(process.argv[2] ?? 20)
const CASES: readonly AttentionWidths[] = [
  { name: 'MLRA-4, one rank', heads: 64, latent: 128, rope: 64 },
  { name: 'MLA', heads: 64, latent: 512, rope: 64 },
]
const LENGTHS = [131_072, 524_288, 2_097_152]
const CHECKED = [1, 63, 64, 65, 1003, 131_072]

const gpu = await openGpu(process.argv[3])
console.log(`${gpuLine(gpu)}; ${runs} runs, median (p10..p90) of microseconds`)
console.log('floor: the bytes of the cache read once by a kernel that does nothing else')
const rows = [['shape', 'tokens', 'attention us', 'GB/s', 'read us', 'share of read', 'largest relative error']]
const times: Record<string, number[]> = {}
for (const widths of CASES) {
  const bench = await AttentionCase.open(gpu, widths, Math.max(...LENGTHS))
  const errors: number[] = []
  for (const tokens of CHECKED) errors.push(await bench.error(tokens))
  console.log(`${widths.name}: ${JSON.stringify(bench.tiling)}; error at ${CHECKED.map((n, i) => `${n}: ${errors[i]?.toExponential(1)}`).join(', ')}`)
  for (const tokens of LENGTHS) {
    const passes = await Promise.all(bench.tables(tokens).map((first) => bench.dispatches(tokens, first)))
    const reads = await Promise.all(bench.tables(tokens).map((first) => bench.reads(tokens, first)))
    const us = await timePasses(gpu, passes, runs)
    const floor = await timePasses(gpu, reads, runs)
    const rate = (tokens * bench.bytesPerToken) / median(us) / 1000
    times[widths.name] = [...(times[widths.name] ?? []), median(us)]
    const share = `${((median(floor) / median(us)) * 100).toFixed(0)} %`
    rows.push([widths.name, String(tokens), spread(us), rate.toFixed(0), spread(floor), share, Math.max(...errors).toExponential(1)])
  }
  bench.close()
}
console.log(table(rows))
const [mlra = [], mla = []] = CASES.map(({ name }) => times[name] ?? [])
console.log(`MLA over MLRA-4: ${LENGTHS.map((n, i) => `${n}: ${((mla[i] as number) / (mlra[i] as number)).toFixed(2)}`).join(', ')}`)
await gpu.context.destroy()
