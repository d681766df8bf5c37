// GPU adapters as plain data that can be posted between threads. Needs no GPU types.

/** The device that a thread acquires. */
export interface GpuRequest {
  /** Part of the adapter's name; undefined: the first hardware adapter. */
  readonly adapter: string | undefined
  /** Bounds checks in shaders and validation in Dawn. Slower; for finding errors. */
  readonly checks: boolean
}

/** The devices that the ranks of an engine acquire, and the kernels that they run. */
export interface GpuSettings {
  /** Parts of adapter names, or PCI addresses (see isPciAddress): rank i takes the one at i mod n. Empty: all ranks share the first hardware adapter. */
  readonly adapters: readonly string[]
  readonly checks: boolean
  /** 'gpu.js': no hand-written WGSL. 'auto': hand-written WGSL unless the adapter lacks what it needs. */
  readonly kernels: 'auto' | 'gpu.js'
}

/** The request of a rank. A device at a PCI address is selected by the environment, so the request has no name. */
export function requestOf({ adapters, checks }: GpuSettings, rank: number): GpuRequest {
  const name = adapters[rank % Math.max(1, adapters.length)]
  return { adapter: name === undefined || isPciAddress(name) ? undefined : name, checks }
}

/** A PCI address as Mesa writes it: pci-0000_65_00_0. */
export function isPciAddress(name: string): boolean {
  return /^pci-[0-9a-f]{4}_[0-9a-f]{2}_[0-9a-f]{2}_[0-9a-f]$/.test(name)
}

/**
 * Environment variables for Mesa's device-select layer, so that a rank sees only its device. Undefined: no device is chosen by address.
 * Vulkan reads them when an instance is created, so ranks acquire their devices one after another. Dawn's names cannot tell two cards of the
 * same model apart.
 */
export function deviceEnvironment({ adapters }: GpuSettings, rank: number): Readonly<Record<string, string>> | undefined {
  const name = adapters[rank % Math.max(1, adapters.length)]
  return name !== undefined && isPciAddress(name) ? { DRI_PRIME: name, MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE: '1' } : undefined
}

/** What a GPU adapter is. */
export interface AdapterFacts {
  readonly vendor: string
  readonly architecture: string
  readonly device: string
  /** Name and version of the driver, as the driver reports them. */
  readonly description: string
  readonly software: boolean
  /** The adapter has subgroup matrices of 16 x 16 x 16, f16 to f32, in subgroups of 32. The tensor-core kernels need them. */
  readonly tensorCores: boolean
  /** Maximum bytes of workgroup memory, and maximum threads of a workgroup. */
  readonly workgroupStorage: number
  readonly workgroupThreads: number
  /** Bytes of the largest buffer that a kernel can read. */
  readonly largestBuffer: number
}

/** An adapter with its name, features and limits. */
export interface AdapterDescription extends AdapterFacts {
  /** The name that the option `adapter` takes. */
  readonly name: string
  /** WebGPU features, Dawn's experimental ones included. */
  readonly features: readonly string[]
  /** The limits that decide which models and kernels fit. */
  readonly limits: Readonly<Record<string, number>>
}

/**
 * Adapter names from Dawn's message when no adapter has the requested name: ` * backend: 'vulkan', name: 'NVIDIA H100'`. Each name once,
 * in order; without backends that cannot compute.
 */
export function adapterNames(message: string): string[] {
  const found = message.matchAll(/backend: '(vulkan|metal|d3d12)', name: '(.*)'$/gim)
  return [...new Set([...found].map(([, , name]) => name as string))]
}

/** An allocation that a device refused. */
export interface DeviceShortage {
  /** What could not be allocated, for messages. */
  readonly what: string
  /** Total bytes, or those of the one buffer that is too large. */
  readonly askedBytes: number
  /** Bytes that were allocated before, or the largest possible buffer. */
  readonly hadBytes: number
  /** Tokens of cache that would fit. Undefined: none would, or it is not known. */
  readonly fitsTokens: number | undefined
}
