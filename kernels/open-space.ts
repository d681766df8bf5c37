// Which class runs a backend. The only place that names them.
import type { BackendName, KernelSpace, SharedMemory } from './backend.js'
import { ReferenceSpace } from './reference/reference-space.js'
import { compileKernels, WasmSpace } from './wasm/wasm-space.js'
import { type WasmModule, WebAssembly } from './wasm/webassembly.js'

/** Bytes of an activation scalar. */
export function scalarBytes(backend: BackendName): number {
  return backend === 'wasm' ? 4 : 8
}

/** Zeroed shared memory of at least `bytes`. Throws RangeError when there is not that much. */
export function createMemory(backend: BackendName, bytes: number): SharedMemory {
  if (backend === 'reference') return new SharedArrayBuffer(Math.ceil(bytes / 8) * 8)
  const pages = Math.max(1, Math.ceil(bytes / 65536))
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
}

export function bufferOf(memory: SharedMemory): SharedArrayBuffer {
  return (memory instanceof SharedArrayBuffer ? memory : memory.buffer) as SharedArrayBuffer
}

/** What every thread needs to run the backend; it crosses by postMessage. `kernels`: the compiled module's file. */
export function prepareBackend(backend: BackendName, kernels = new URL('./wasm/tetrad.wasm', import.meta.url)): WasmModule | undefined {
  return backend === 'wasm' ? compileKernels(kernels) : undefined
}

/** Kernels over one memory. */
export function openSpace(module: WasmModule | undefined, memory: SharedMemory): KernelSpace {
  if (memory instanceof SharedArrayBuffer) return new ReferenceSpace(memory)
  if (!module) throw new Error('a WebAssembly memory needs the compiled kernels')
  return new WasmSpace(module, memory)
}

/** The part of a determinism key that names the instructions in use. */
export function instructionLevel(backend: BackendName): string {
  return backend === 'wasm' ? 'simd128' : 'float64'
}
