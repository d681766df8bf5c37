// A GPU device of this thread, acquired through gpu.js on Dawn. Owns the device and what went wrong on it; knows no kernels.
// gpu.js keeps one device per thread (module); it asks for buffer sizes only, so the request is widened here.
/// <reference types="@webgpu/types" />
import { type AdapterDescription, type AdapterFacts, adapterNames, type DeviceShortage, type GpuRequest } from './adapter.js'
import type { GpuJs } from './gpu-js.js'

/** No adapter, or none that was asked for. */
export class NoAdapter extends Error {
  override readonly name = 'NoAdapter'
}

/** A device has not the memory that was asked for. */
export class DeviceMemory extends Error {
  override readonly name = 'DeviceMemory'
  readonly shortage: DeviceShortage

  constructor(shortage: DeviceShortage) {
    super(`${shortage.what}: ${shortage.askedBytes} bytes asked for`)
    this.shortage = shortage
  }
}

/** The device was lost, ran out of memory, or refused what it was told. */
export class GpuFailure extends Error {
  override readonly name = 'GpuFailure'
}

/** Asked for as large as the adapter has them: the defaults are small. */
const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupsPerDimension',
  'minStorageBufferOffsetAlignment',
] as const

/** What tensor-core kernels need, then what profiles do. */
const FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix', 'timestamp-query'] as const

/** Without these Dawn hides f16 on NVIDIA, and subgroup matrices; and it rounds times to 0.1 ms. */
const EXPERIMENTAL = 'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia'
const EXACT_TIMES = 'disable-dawn-features=timestamp_quantization'
const UNCHECKED = 'disable_robustness,skip_validation'

interface Dawn {
  readonly create: (flags: string[]) => GPU
  readonly globals: object
}

/**
 * Loads Dawn's addon. Threads must do it one after another: its initialization is not safe among several at once, and it crashes
 * (seen on an NVIDIA machine with four). Throws NoAdapter where it can't be loaded.
 */
export async function loadDawn(): Promise<Dawn> {
  try {
    return (await import('webgpu')) as unknown as Dawn
  } catch (cause) {
    throw new NoAdapter(`Dawn could not be loaded: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}

/** Opens Dawn with the flags of a request. */
async function openDawn({ adapter, checks }: GpuRequest): Promise<GPU> {
  const dawn = await loadDawn()
  Object.assign(globalThis, dawn.globals)
  return dawn.create([checks ? EXPERIMENTAL : `${EXPERIMENTAL},${UNCHECKED}`, EXACT_TIMES, ...(adapter === undefined ? [] : [`adapter=${adapter}`])])
}

/** Not in the types yet. */
interface SubgroupMatrixConfig {
  readonly M: number
  readonly N: number
  readonly K: number
  readonly componentType: string
  readonly resultComponentType: string
}

/** Subgroup matrices as the tensor-core kernels use them, by subgroups of 32. */
function hasTensorCores({ info, features }: GPUAdapter): boolean {
  const needed = FEATURES.slice(0, 3).every((name) => features.has(name))
  if (!needed || info.subgroupMinSize !== 32 || info.subgroupMaxSize !== 32) return false
  const configs = [...((info as { readonly subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig> }).subgroupMatrixConfigs ?? [])]
  return configs.some((c) => c.M === 16 && c.N === 16 && c.K === 16 && c.componentType === 'f16' && c.resultComponentType === 'f32')
}

function factsOf(adapter: GPUAdapter): AdapterFacts {
  const { info } = adapter
  const { vendor, architecture, device, description } = info
  const software = info.isFallbackAdapter || /swiftshader|llvmpipe|software/i.test(`${architecture} ${device} ${description}`)
  const { limits } = adapter
  return {
    vendor,
    architecture,
    device,
    description,
    software,
    tensorCores: hasTensorCores(adapter),
    workgroupStorage: limits.maxComputeWorkgroupStorageSize,
    workgroupThreads: limits.maxComputeInvocationsPerWorkgroup,
    largestBuffer: Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize),
  }
}

/** The adapter that answers, without taking a device. */
export async function findAdapter(request: GpuRequest): Promise<AdapterFacts | undefined> {
  const gpu = await openDawn(request)
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' })
  return adapter ? factsOf(adapter) : undefined
}

/** Names of the adapters that answer, in Dawn's order, each once. Throws NoAdapter where Dawn can't be loaded. */
export async function listAdapters(): Promise<string[]> {
  const gpu = await openDawn({ adapter: 'no adapter has this name', checks: true })
  try {
    // null: there is no adapter of any name.
    await gpu.requestAdapter()
    return []
  } catch (error) {
    return adapterNames(error instanceof Error ? error.message : String(error))
  }
}

/** What the adapter of that name has, without taking a device. Throws NoAdapter if it does not answer. */
export async function describeAdapter(name: string): Promise<AdapterDescription> {
  const gpu = await openDawn({ adapter: name, checks: true })
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' }).catch((cause: unknown) => {
    throw new NoAdapter(cause instanceof Error ? cause.message : String(cause), { cause })
  })
  if (!adapter) throw new NoAdapter(`${name} does not answer`)
  const limits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit] as number]))
  return { name, ...factsOf(adapter), features: [...adapter.features].sort(), limits }
}

export class GpuContext {
  readonly gpuJs: GpuJs
  readonly device: GPUDevice
  readonly adapter: AdapterFacts
  /** gpu.js's own handle of the device; its buffers are checked against it. */
  readonly handle: object
  #error: string | undefined
  readonly #underWay = new Set<Promise<unknown>>()
  /** Rejects when the device is lost or refuses something. */
  readonly failed: Promise<never>
  #fail: (error: Error) => void = () => {}

  private constructor(gpuJs: GpuJs, device: GPUDevice, adapter: AdapterFacts, handle: object) {
    this.gpuJs = gpuJs
    this.device = device
    this.adapter = adapter
    this.handle = handle
    this.failed = new Promise((_, reject) => {
      this.#fail = reject
    })
    this.failed.catch(() => {})
    const note = (message: string) => {
      this.#error ??= message
      this.#fail(new GpuFailure(this.#error))
    }
    // In the place of gpu.js's own handler, which only logs.
    device.onuncapturederror = (event) => note(`the GPU refused a command: ${event.error.message}`)
    void device.lost.then(({ reason, message }) => note(`the GPU device was lost (${reason || 'unknown'}): ${message}`))
  }

  /** Acquires a device for this thread; a software one only when it is named. Throws NoAdapter. */
  static async acquire(request: GpuRequest): Promise<GpuContext> {
    const gpu = await openDawn(request)
    let facts: AdapterFacts | undefined
    const wrapped = {
      wgslLanguageFeatures: gpu.wgslLanguageFeatures,
      getPreferredCanvasFormat: () => 'rgba8unorm' as const,
      requestAdapter: async () => {
        const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' })
        if (!adapter) return adapter
        facts = factsOf(adapter)
        const requestDevice = adapter.requestDevice.bind(adapter)
        adapter.requestDevice = (descriptor: GPUDeviceDescriptor = {}) =>
          requestDevice({
            ...descriptor,
            requiredFeatures: FEATURES.filter((name) => adapter.features.has(name)) as GPUFeatureName[],
            requiredLimits: { ...descriptor.requiredLimits, ...Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name] as number])) },
          })
        return adapter
      },
    }
    Object.defineProperty(globalThis, 'navigator', { value: { gpu: wrapped }, configurable: true, writable: true })
    const gpuJs = ((await import('gpu.js')) as unknown as { default: GpuJs }).default
    let handle: { device: GPUDevice }
    try {
      handle = await gpuJs.WebGPUContext.acquire()
    } catch (cause) {
      const wanted = request.adapter === undefined ? 'no GPU adapter answers' : `no GPU adapter with ${request.adapter} in its name answers`
      throw new NoAdapter(facts ? `the adapter gave no device: ${cause instanceof Error ? cause.message : cause}` : wanted, { cause })
    }
    if (!facts) throw new NoAdapter('gpu.js took a device that was not asked for here')
    const context = new GpuContext(gpuJs, handle.device, facts, handle)
    if (!facts.software || request.adapter !== undefined) return context
    await context.destroy()
    throw new NoAdapter(`the only adapter is software (${facts.device || facts.description}): name it to use it`)
  }

  /** What `make` returns, once the device has said that there was memory for it. */
  async withMemory<T>(make: () => T, shortage: () => DeviceShortage): Promise<T> {
    this.device.pushErrorScope('out-of-memory')
    const made = make()
    const error = await this.settle(this.device.popErrorScope())
    if (error) throw new DeviceMemory(shortage())
    return made
  }

  /** Throws GpuFailure if anything has gone wrong: results since are not to be trusted. */
  check(): void {
    if (this.#error !== undefined) throw new GpuFailure(this.#error)
  }

  /** Waits for device work; rejects with GpuFailure when the device fails before, or with what `late` rejects with. */
  async settle<T>(work: Promise<T>, late?: Promise<never>): Promise<T> {
    // Work goes on when the wait for it has ended: see destroy.
    this.#underWay.add(work)
    const ended = () => this.#underWay.delete(work)
    work.then(ended, ended)
    const result = await Promise.race(late ? [work, this.failed, late] : [work, this.failed])
    this.check()
    return result
  }

  /**
   * Frees the device and all its buffers; when it resolves, nothing of it is under way: Dawn aborts the process when a thread ends
   * before, say, a mapAsync of it does.
   */
  async destroy(): Promise<void> {
    this.device.destroy()
    await this.device.lost
    await Promise.allSettled(this.#underWay)
  }
}
