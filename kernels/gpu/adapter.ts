// GPU adapters as plain data: it crosses threads, and needs no GPU types.

/** What to acquire. */
export interface GpuRequest {
  /** Part of the adapter's name; undefined: the first hardware adapter. */
  readonly adapter: string | undefined
  /** Bounds checks in shaders and validation by Dawn: slower, for finding errors. */
  readonly checks: boolean
}

/** What the ranks of an engine are to acquire and run. */
export interface GpuSettings {
  /** Parts of adapter names, or PCI addresses (see isPciAddress): rank i takes the one at i mod n. None: all share the first hardware adapter. */
  readonly adapters: readonly string[]
  readonly checks: boolean
  /** 'gpu.js': no hand-written WGSL; 'auto': only where the adapter lacks what it needs. */
  readonly kernels: 'auto' | 'gpu.js'
}

/** Of a rank. A device at a PCI address is chosen by the environment, and asked for without a name. */
export function requestOf({ adapters, checks }: GpuSettings, rank: number): GpuRequest {
  const name = adapters[rank % Math.max(1, adapters.length)]
  return { adapter: name === undefined || isPciAddress(name) ? undefined : name, checks }
}

/** A PCI address as Mesa writes it: pci-0000_65_00_0. */
export function isPciAddress(name: string): boolean {
  return /^pci-[0-9a-f]{4}_[0-9a-f]{2}_[0-9a-f]{2}_[0-9a-f]$/.test(name)
}

/**
 * Environment in which Mesa's device-select layer shows a rank its device alone; undefined: no device is chosen by address. Vulkan reads it when
 * an instance is made, so ranks acquire one after another. Dawn's names can't tell cards of one kind apart.
 */
export function deviceEnvironment({ adapters }: GpuSettings, rank: number): Readonly<Record<string, string>> | undefined {
  const name = adapters[rank % Math.max(1, adapters.length)]
  return name !== undefined && isPciAddress(name) ? { DRI_PRIME: name, MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE: '1' } : undefined
}

export interface AdapterFacts {
  readonly vendor: string
  readonly architecture: string
  readonly device: string
  /** Driver and version, as the driver says them. */
  readonly description: string
  readonly software: boolean
  /** It lists subgroup matrices of 16 x 16 x 16 from f16 to f32 for subgroups of 32: what the tensor-core kernels need. */
  readonly tensorCores: boolean
  /** Bytes of workgroup memory, and threads of a workgroup. */
  readonly workgroupStorage: number
  readonly workgroupThreads: number
  /** Bytes of the largest buffer that a kernel can read. */
  readonly largestBuffer: number
}

/** What an adapter has. */
export interface AdapterDescription extends AdapterFacts {
  /** By which `adapter` can ask for it. */
  readonly name: string
  /** WebGPU features, Dawn's experimental ones included. */
  readonly features: readonly string[]
  /** The limits that decide which models and kernels fit. */
  readonly limits: Readonly<Record<string, number>>
}

/**
 * Names from the message of Dawn where no adapter has the name that was asked for: ` * backend: 'vulkan', name: 'NVIDIA H100'`. Each
 * once, in order; only of backends that compute on a real device or Vulkan's software ones.
 */
export function adapterNames(message: string): string[] {
  const found = message.matchAll(/backend: '(vulkan|metal|d3d12)', name: '(.*)'$/gim)
  return [...new Set([...found].map(([, , name]) => name as string))]
}

/** Memory that a device does not have. */
export interface DeviceShortage {
  /** For people: what found no room. */
  readonly what: string
  /** In all, or of one buffer where that alone is too large. */
  readonly askedBytes: number
  /** What had been given before, or the largest buffer. */
  readonly hadBytes: number
  /** Tokens of cache that would fit; undefined: not even without a cache, or it can't be told. */
  readonly fitsTokens: number | undefined
}
