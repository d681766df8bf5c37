// Compiles kernels/wasm/assembly to dist/kernels/wasm/tetrad.wasm.
import { mkdirSync, statSync } from 'node:fs'
import asc from 'assemblyscript/asc'

mkdirSync('dist/kernels/wasm', { recursive: true })
const outFile = 'dist/kernels/wasm/tetrad.wasm'
const { error, stderr } = await asc.main([
  'kernels/wasm/assembly/index.ts',
  '--outFile',
  outFile,
  '-O3',
  '--noAssert',
  '--runtime',
  'stub',
  '--importMemory',
  '--sharedMemory',
  '--initialMemory',
  '1',
  '--maximumMemory',
  '65536',
  '--enable',
  'simd,threads',
])
if (error) {
  console.error(stderr.toString())
  process.exit(1)
}
console.log(`${outFile}: ${statSync(outFile).size} bytes`)
