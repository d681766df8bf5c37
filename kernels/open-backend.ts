// Opens a backend by its name. The only module that knows the classes.
import type { BackendName, KernelBackend, SharedMemory } from './backend.js'
import { ReferenceBackend } from './reference/reference-backend.js'
import { KERNEL_FILES, type SimdLevel } from './wasm/simd-level.js'
import { compileKernels, WasmBackend } from './wasm/wasm-backend.js'
import { type WasmModule, WebAssembly } from './wasm/webassembly.js'

const WASM_PAGE_BYTES = 65536

/** Bytes of an activation scalar. */
export function scalarBytes(backend: BackendName): number {
  return backend === 'reference' ? 8 : 4
}

/** Zeroed shared memory of at least `bytes`. Throws RangeError if it cannot be allocated. */
export function createMemory(backend: BackendName, bytes: number): SharedMemory {
  if (backend === 'reference') return new SharedArrayBuffer(Math.ceil(bytes / 8) * 8)
  const pages = Math.max(1, Math.ceil(bytes / 65536))
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
}

/** The same with room to grow up to `most` bytes. */
export function createGrowingMemory(backend: BackendName, bytes: number, most: number): SharedMemory {
  if (backend === 'reference') return new SharedArrayBuffer(Math.ceil(bytes / 8) * 8, { maxByteLength: Math.ceil(most / 8) * 8 })
  const pages = (size: number) => Math.max(1, Math.ceil(size / WASM_PAGE_BYTES))
  return new WebAssembly.Memory({ initial: pages(bytes), maximum: pages(most), shared: true })
}

/** Makes a growing memory at least as large; views of it made before stay as they are. Throws RangeError where it cannot. */
export function growMemory(memory: SharedMemory, bytes: number): void {
  if (memory instanceof SharedArrayBuffer) {
    if (bytes > memory.byteLength) memory.grow(Math.ceil(bytes / 8) * 8)
    return
  }
  const more = Math.ceil((bytes - memory.buffer.byteLength) / WASM_PAGE_BYTES)
  if (more > 0) memory.grow(more)
}

export function bufferOf(memory: SharedMemory): SharedArrayBuffer {
  return (memory instanceof SharedArrayBuffer ? memory : memory.buffer) as SharedArrayBuffer
}

/** Directory of the compiled kernels if the package is not bundled. */
const KERNELS = new URL('./wasm/', import.meta.url)

/** What every thread needs to run the backend; can be posted to threads. `folder`: directory of the compiled kernels. */
export function prepareBackend(backend: BackendName, simd: SimdLevel = 'simd128', folder = KERNELS): WasmModule | undefined {
  return backend !== 'reference' ? compileKernels(new URL(KERNEL_FILES[simd], folder)) : undefined
}

/** Kernels over one memory. */
export function openBackend(module: WasmModule | undefined, memory: SharedMemory): KernelBackend {
  if (memory instanceof SharedArrayBuffer) return new ReferenceBackend(memory)
  if (!module) throw new Error('a WebAssembly memory needs the compiled kernels')
  return new WasmBackend(module, memory)
}

/** The part of a determinism key that names the instructions in use. */
export function instructionLevel(backend: BackendName, simd: SimdLevel): string {
  // The adapter of a GPU rank is known only when the rank has acquired it.
  return backend === 'wasm' ? simd : backend === 'gpu' ? 'adapter' : 'float64'
}
