// Compiles kernels/wasm/assembly, and the probes of the benchmarks, twice: for every engine, and for those with relaxed SIMD (fused multiply-add).
import { mkdirSync, statSync } from 'node:fs'
import asc from 'assemblyscript/asc'

const options = '-O3 --noAssert --runtime stub --importMemory --sharedMemory --initialMemory 1 --maximumMemory 65536'.split(' ')

for (const dir of ['dist/kernels/wasm', 'dist/bench']) mkdirSync(dir, { recursive: true })
for (const [outFile, entry, features] of [
  ['dist/kernels/wasm/tetrad.wasm', 'kernels/wasm/assembly/index.ts', 'simd,threads'],
  ['dist/kernels/wasm/tetrad-relaxed.wasm', 'kernels/wasm/assembly/index.ts', 'simd,threads,relaxed-simd'],
  ['dist/bench/probe.wasm', 'bench/assembly/probe.ts', 'simd,threads'],
  ['dist/bench/probe-relaxed.wasm', 'bench/assembly/probe.ts', 'simd,threads,relaxed-simd'],
]) {
  const { error, stderr } = await asc.main([entry, '--outFile', outFile, ...options, '--enable', features])
  if (error) {
    console.error(stderr.toString())
    process.exit(1)
  }
  console.log(`${outFile}: ${statSync(outFile).size} bytes`)
}
