// Which build of the kernels an engine can run: relaxed SIMD with a fused multiply-add, or plain 128-bit SIMD.
import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { WebAssembly } from './webassembly.js'

/** 'relaxed': relaxed SIMD, whose multiply-add rounds once here. 'simd128': every engine, two roundings. */
export type SimdLevel = 'simd128' | 'relaxed'

export const SIMD_LEVELS = ['simd128', 'relaxed'] as const

export const KERNEL_FILES: Readonly<Record<SimdLevel, string>> = { simd128: 'tetrad.wasm', relaxed: 'tetrad-relaxed.wasm' }

/** The best level that this engine and processor support. `folder`: directory of the compiled kernels. */
export function bestSimdLevel(folder: URL): SimdLevel {
  const bytes = readFileSync(new URL(KERNEL_FILES.relaxed, folder))
  // Node 20 needs a flag; later versions have it on.
  if (!WebAssembly.validate(bytes)) setFlagsFromString('--experimental-wasm-relaxed-simd')
  if (!WebAssembly.validate(bytes)) return 'simd128'
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory, abort: () => {} } })
  return (exports as { fusesMultiplyAdd(): number }).fusesMultiplyAdd() ? 'relaxed' : 'simd128'
}

/**
 * Whether V8 has one instruction for the dot product of bytes with an accumulator: from V8 13 (Node 24) on, if the processor has AVX-VNNI
 * or is an ARM one. Elsewhere it takes more instructions than the plain dot product and an addition.
 */
export function hasDotInstruction(): boolean {
  if (typeof process !== 'object' || Number.parseInt(process.versions?.v8 ?? '', 10) < 13) return false
  if (process.arch === 'arm64') return true
  try {
    return readFileSync('/proc/cpuinfo', 'latin1').includes(' avx_vnni')
  } catch {
    return false
  }
}
