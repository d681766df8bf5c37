// A GPU device of this thread, acquired through gpu.js on Dawn. Owns the device and records its errors; knows no kernels.
// gpu.js keeps one device per thread (module); it asks for buffer sizes only, so the request is widened here.
/// <reference types="@webgpu/types" />
import { type AdapterDescription, type AdapterFacts, adapterNames, type DeviceShortage, type GpuRequest } from './adapter.js'
import type { GpuJs } from './gpu-js.js'

/** No adapter answers, or none with the requested name. */
export class NoAdapter extends Error {
  override readonly name = 'NoAdapter'
}

/** The device does not have the memory that was requested. */
export class DeviceMemory extends Error {
  override readonly name = 'DeviceMemory'
  readonly shortage: DeviceShortage

  constructor(shortage: DeviceShortage) {
    super(`${shortage.what}: ${shortage.askedBytes} bytes requested`)
    this.shortage = shortage
  }
}

/** The device was lost, ran out of memory, or refused a command. */
export class GpuFailure extends Error {
  override readonly name = 'GpuFailure'
}

/** Requested at the adapter's maximum; WebGPU's defaults are small. */
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

/** Needed by the tensor-core kernels; the last one by profiles. */
const FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix', 'timestamp-query'] as const

/** Without these flags Dawn hides f16 on NVIDIA and subgroup matrices, and rounds times to 0.1 ms. */
const EXPERIMENTAL = 'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia'
const EXACT_TIMES = 'disable-dawn-features=timestamp_quantization'
const UNCHECKED = 'disable_robustness,skip_validation'

/** GPUMapMode.READ */
const MAP_READ = 1

interface Dawn {
  readonly create: (flags: string[]) => GPU
  readonly globals: object
}

/**
 * Loads Dawn's addon. Threads must call it one after another: its initialization is not thread-safe and crashes the process (seen on an
 * NVIDIA machine with four threads). Throws NoAdapter if it cannot be loaded.
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

/** Not in the type package yet. */
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

/** The adapter that answers a request. Acquires no device. */
export async function findAdapter(request: GpuRequest): Promise<AdapterFacts | undefined> {
  const gpu = await openDawn(request)
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' })
  return adapter ? factsOf(adapter) : undefined
}

/** Names of the adapters that answer, in Dawn's order, each once. Throws NoAdapter if Dawn cannot be loaded. */
export async function listAdapters(): Promise<string[]> {
  const gpu = await openDawn({ adapter: 'no adapter has this name', checks: true })
  try {
    // null: no adapter at all.
    await gpu.requestAdapter()
    return []
  } catch (error) {
    return adapterNames(error instanceof Error ? error.message : String(error))
  }
}

/** Describes the adapter with a name. Acquires no device. Throws NoAdapter if it does not answer. */
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
  /** Buffers whose map is pending. */
  readonly #mapping = new Set<GPUBuffer>()
  readonly #onPending: (count: number) => void
  /** Rejects when the device is lost or refuses something. */
  readonly failed: Promise<never>
  #fail: (error: Error) => void = () => {}

  private constructor(gpuJs: GpuJs, device: GPUDevice, adapter: AdapterFacts, handle: object, onPending: (count: number) => void) {
    this.#onPending = onPending
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
    // Replaces gpu.js's own handler, which only logs.
    device.onuncapturederror = (event) => note(`the GPU refused a command: ${event.error.message}`)
    void device.lost.then(({ reason, message }) => note(`the GPU device was lost (${reason || 'unknown'}): ${message}`))
  }

  /**
   * Acquires a device for this thread; a software device only if it is named. onPending: called with the number of operations that the
   * device has not answered, whenever it changes; while it is not 0, the thread must not be ended. Throws NoAdapter.
   */
  static async acquire(request: GpuRequest, onPending: (count: number) => void = () => {}): Promise<GpuContext> {
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
      throw new NoAdapter(facts ? `the adapter returned no device: ${cause instanceof Error ? cause.message : cause}` : wanted, { cause })
    }
    if (!facts) throw new NoAdapter('gpu.js acquired a device by itself')
    const context = new GpuContext(gpuJs, handle.device, facts, handle, onPending)
    if (!facts.software || request.adapter !== undefined) return context
    await context.destroy()
    throw new NoAdapter(`the only adapter is software (${facts.device || facts.description}): name it to use it`)
  }

  /** Result of `make`, after the device has confirmed its allocations. */
  async withMemory<T>(make: () => T, shortage: () => DeviceShortage): Promise<T> {
    this.device.pushErrorScope('out-of-memory')
    const made = make()
    const error = await this.settle(this.device.popErrorScope())
    if (error) throw new DeviceMemory(shortage())
    return made
  }

  /** Throws GpuFailure after any error; results since then cannot be trusted. */
  check(): void {
    if (this.#error !== undefined) throw new GpuFailure(this.#error)
  }

  /** Waits for device work. Rejects with GpuFailure if the device fails first, or as `late` rejects. */
  async settle<T>(work: Promise<T>, late?: Promise<never>): Promise<T> {
    // The device may still work after the wait has ended: see destroy.
    this.#underWay.add(work)
    this.#onPending(this.#underWay.size)
    const ended = () => {
      this.#underWay.delete(work)
      this.#onPending(this.#underWay.size)
    }
    work.then(ended, ended)
    const result = await Promise.race(late ? [work, this.failed, late] : [work, this.failed])
    this.check()
    return result
  }

  /** Maps the first bytes of a buffer for reading. Waits as `settle` does. */
  map(buffer: GPUBuffer, bytes: number, late?: Promise<never>): Promise<void> {
    const work = buffer.mapAsync(MAP_READ, 0, bytes)
    this.#mapping.add(buffer)
    const ended = () => this.#mapping.delete(buffer)
    work.then(ended, ended)
    return this.settle(work, late)
  }

  /** Rejects what `map` waits for, at once, however long the device still works. */
  cancelMaps(): void {
    for (const buffer of this.#mapping) buffer.unmap()
  }

  /**
   * Frees the device and all its buffers. When it resolves, no operation is pending: Dawn aborts the process if a thread ends while, for
   * example, a mapAsync is pending.
   */
  async destroy(): Promise<void> {
    this.cancelMaps()
    this.device.destroy()
    await this.device.lost
    await Promise.allSettled(this.#underWay)
  }
}
