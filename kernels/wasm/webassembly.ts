// Types of the WebAssembly API that is used. Node's types leave it to the DOM library, which would declare a browser's globals; an
// ambient declaration would be missing from the package's published types.

export interface WasmModule {
  readonly __wasmModule?: never
}

export interface WasmMemory {
  /** A new one after each growth. */
  readonly buffer: SharedArrayBuffer
  /** Pages of 64 KiB. Throws RangeError beyond the maximum. */
  grow(pages: number): number
}

interface WebAssemblyApi {
  readonly validate: (bytes: Uint8Array) => boolean
  readonly Module: new (bytes: Uint8Array) => WasmModule
  readonly Instance: new (module: WasmModule, imports: Record<string, Record<string, unknown>>) => { readonly exports: Record<string, unknown> }
  /** Sizes in pages of 64 KiB. */
  readonly Memory: new (descriptor: {
    initial: number
    maximum: number
    shared: true
  }) => WasmMemory
}

export const WebAssembly: WebAssemblyApi = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly
