// Which backend 'auto' is on this machine, and why. Looks for adapters only where the system has a GPU.
import { existsSync, readdirSync } from 'node:fs'
import type { BackendName } from '../../kernels/backend.js'
import { requestOf } from '../../kernels/gpu/adapter.js'
import { findAdapter } from '../../kernels/gpu/context.js'
import type { RankCount } from '../../workers/protocol.js'
import { OptionError } from '../errors.js'
import { type ResolvedOptions, ranksOf } from '../options/engine-options.js'

export interface BackendChoice {
  readonly backend: BackendName
  readonly ranks: RankCount
  /** For people. */
  readonly reason: string
}

/** Throws OptionError for options that the backend does not have, or a named adapter that does not answer. */
export async function chooseBackend(options: ResolvedOptions): Promise<BackendChoice> {
  const chosen = options.backend === 'auto' ? await automaticBackend(options) : { backend: options.backend, reason: 'it was asked for' }
  const { backend } = chosen
  const choice = { ...chosen, ranks: options.ranksAreAutomatic ? ranksOf(backend, options.adapter) : options.ranks }
  if (backend === 'gpu') {
    if (options.cache === 'int8') throw unsupported("cache: 'int8'", 'gpu backend', "Choose cache: 'f16' or 'bf16', or backend: 'wasm'.")
    if (options.gpuKernels === 'gpu.js' && (options.cache !== 'f32' || options.weights === 'int8')) {
      const wanted = options.cache !== 'f32' ? `cache: '${options.cache}'` : "weights: 'int8'"
      throw unsupported(wanted, "gpuKernels: 'gpu.js'", "Choose cache: 'f32' and weights: 'f32' or 'bf16', or leave gpuKernels out.")
    }
    return choice
  }
  if (options.cache === 'f16') throw unsupported("cache: 'f16'", `${backend} backend`, "Choose cache: 'bf16', or backend: 'gpu'.")
  const given = { adapter: options.adapter.length > 0, gpuChecks: options.gpuChecks, gpuKernels: options.gpuKernels !== 'auto' }
  for (const [name, is] of Object.entries(given)) {
    if (is) throw unsupported(name, `${backend} backend`, `Choose backend: 'gpu', or leave ${name} out.`)
  }
  return choice
}

async function automaticBackend({ adapter: names, cache }: ResolvedOptions): Promise<Omit<BackendChoice, 'ranks'>> {
  const [name] = names
  if (name === undefined && cache === 'int8') return { backend: 'wasm', reason: "the GPU has no cache: 'int8'" }
  if (name === undefined && !hasGpu()) return { backend: 'wasm', reason: 'the system has no GPU device' }
  const request = requestOf({ adapters: names, checks: true, kernels: 'auto' }, 0)
  const adapter = await findAdapter(request).catch(() => undefined)
  if (adapter && (request.adapter !== undefined || !adapter.software))
    return { backend: 'gpu', reason: `${adapter.description || adapter.device} answers` }
  if (name === undefined)
    return { backend: 'wasm', reason: adapter ? `the only adapter is software: ${adapter.description}` : 'no GPU adapter answers' }
  throw new OptionError('OPTION_INVALID', {
    what: 'no GPU adapter of that name answers',
    expected: 'part of the name of an adapter that is here',
    actual: name,
    remedy: 'Check the name and the driver, or leave adapter out.',
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

function unsupported(what: string, by: string, remedy: string): OptionError {
  return new OptionError('OPTION_INVALID', {
    what: `${by} does not go with this option`,
    expected: 'options that go together',
    actual: what,
    remedy,
  })
}
