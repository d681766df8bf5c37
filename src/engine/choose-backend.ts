// Which backend 'auto' is on this machine, and why. Looks for adapters only where the system has a GPU.
import { existsSync, readdirSync } from 'node:fs'
import type { BackendName } from '../../kernels/backend.js'
import { CACHE_FORMATS } from '../../kernels/cache-formats.js'
import { requestOf } from '../../kernels/gpu/adapter.js'
import { findAdapter } from '../../kernels/gpu/context.js'
import { WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import { OptionError } from '../errors.js'
import { type CheckedOptions, type ResolvedOptions, resolveFor } from '../options/engine-options.js'

/** Options that know their backend and ranks. */
export interface BackendChoice {
  readonly options: ResolvedOptions
  /** Why this backend, for people. */
  readonly backendReason: string
}

/** Throws OptionError for options that the backend does not support, or a named adapter that does not answer. */
export async function resolveOptions(options: CheckedOptions): Promise<BackendChoice> {
  const chosen = options.backend === 'auto' ? await automaticBackend(options) : { backend: options.backend, reason: 'it was asked for' }
  const { backend } = chosen
  const choice = { options: resolveFor(backend, options), backendReason: chosen.reason }
  if (backend === 'gpu') {
    const { gpu } = CACHE_FORMATS[options.cache]
    if (!gpu) throw unsupported(`cache: '${options.cache}'`, 'the gpu backend', "Choose cache: 'f16' or 'bf16', or backend: 'wasm'.")
    if (options.partition === 'sequence')
      throw unsupported("partition: 'sequence'", 'the gpu backend', "Choose partition: 'heads', or backend: 'wasm'.")
    if (options.gpuKernels === 'gpu.js') {
      const hasWeights = options.weights === 'auto' || WEIGHT_FORMATS[options.weights].floatTiles
      if (!gpu.gpuJs || !hasWeights) {
        const wanted = gpu.gpuJs ? `weights: '${options.weights}'` : `cache: '${options.cache}'`
        throw unsupported(wanted, "gpuKernels: 'gpu.js'", "Choose cache: 'f32' and weights: 'f32' or 'bf16', or omit gpuKernels.")
      }
    }
    return choice
  }
  if (!CACHE_FORMATS[options.cache].cpu)
    throw unsupported(`cache: '${options.cache}'`, `the ${backend} backend`, "Choose cache: 'bf16', or backend: 'gpu'.")
  const given = { adapter: options.adapter.length > 0, gpuChecks: options.gpuChecks, gpuKernels: options.gpuKernels !== 'auto' }
  for (const [name, is] of Object.entries(given)) {
    if (is) throw unsupported(name, `the ${backend} backend`, `Choose backend: 'gpu', or omit ${name}.`)
  }
  return choice
}

async function automaticBackend({ adapter: names, adapters, cache, partition }: CheckedOptions): Promise<{ backend: BackendName; reason: string }> {
  const [name] = names
  if (name === undefined && !CACHE_FORMATS[cache].gpu) return { backend: 'wasm', reason: `the GPU does not support cache: '${cache}'` }
  if (name === undefined && partition === 'sequence') return { backend: 'wasm', reason: "the GPU does not support partition: 'sequence'" }
  if (name === undefined && Object.keys(adapters).length > 0) return { backend: 'wasm', reason: 'the GPU does not support low-rank adapters' }
  if (name === undefined && !hasGpu()) return { backend: 'wasm', reason: 'the system has no GPU device' }
  const request = requestOf({ adapters: names, checks: true, kernels: 'auto' }, 0)
  const adapter = await findAdapter(request).catch(() => undefined)
  if (adapter && (request.adapter !== undefined || !adapter.software))
    return { backend: 'gpu', reason: `${adapter.description || adapter.device} answers` }
  if (name === undefined)
    return { backend: 'wasm', reason: adapter ? `the only adapter is software: ${adapter.description}` : 'no GPU adapter answers' }
  throw new OptionError('OPTION_INVALID', {
    what: 'no GPU adapter with this name answers',
    expected: 'part of the name of an available adapter',
    actual: name,
    remedy: 'Check the name and the driver, or omit adapter.',
  })
}

/** On Linux a GPU has a device file; elsewhere the driver is asked. */
function hasGpu(): boolean {
  return process.platform !== 'linux' || gpuDeviceFiles().length > 0
}

/** Device files of GPUs, on Linux. */
export function gpuDeviceFiles(): string[] {
  const renders = existsSync('/dev/dri') ? readdirSync('/dev/dri').filter((name) => name.startsWith('render')) : []
  return [...renders.map((name) => `/dev/dri/${name}`), ...['/dev/nvidiactl', '/dev/dxg'].filter((path) => existsSync(path))]
}

/** `by`: the backend or the option that does not support it. */
function unsupported(what: string, by: string, remedy: string): OptionError {
  return new OptionError('OPTION_INVALID', { what: `${what} is not supported by ${by}`, remedy })
}
