// Compiles kernels/wasm/assembly twice: for every engine, and for those with relaxed SIMD (fused multiply-add).
import { mkdirSync, statSync } from 'node:fs'
import asc from 'assemblyscript/asc'

const options = '-O3 --noAssert --runtime stub --importMemory --sharedMemory --initialMemory 1 --maximumMemory 65536'.split(' ')

mkdirSync('dist/kernels/wasm', { recursive: true })
for (const [name, features] of [
  ['tetrad.wasm', 'simd,threads'],
  ['tetrad-relaxed.wasm', 'simd,threads,relaxed-simd'],
]) {
  const outFile = `dist/kernels/wasm/${name}`
  const { error, stderr } = await asc.main(['kernels/wasm/assembly/index.ts', '--outFile', outFile, ...options, '--enable', features])
  if (error) {
    console.error(stderr.toString())
    process.exit(1)
  }
  console.log(`${outFile}: ${statSync(outFile).size} bytes`)
}
