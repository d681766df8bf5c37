// Usage flags of WebGPU buffers. GPUBufferUsage is a global that exists only once Dawn is loaded; the values are the standard's.
export const BUFFER_USAGE = { mapRead: 0x1, copySrc: 0x4, copyDst: 0x8, uniform: 0x40, storage: 0x80, queryResolve: 0x200 } as const
