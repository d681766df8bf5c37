// Which backend 'auto' is on this machine, and why. Looks for adapters only where the system has a GPU.
import { existsSync, readdirSync } from 'node:fs'
import type { BackendName } from '../../kernels/backend.js'
import { findAdapter } from '../../kernels/gpu/context.js'
import type { ResolvedOptions } from '../config/engine-options.js'
import { OptionError } from '../errors.js'

export interface BackendChoice {
  readonly backend: BackendName
  /** For people. */
  readonly reason: string
}

/** Throws OptionError for options that the backend does not have. */
export async function chooseBackend(options: ResolvedOptions): Promise<BackendChoice> {
  const choice = options.backend === 'auto' ? await automaticBackend(options) : { backend: options.backend, reason: 'it was asked for' }
  const gpu = choice.backend === 'gpu'
  if (!gpu && options.cache === 'f16') throw unsupported("cache: 'f16'", choice.backend, "Choose cache: 'bf16', or backend: 'gpu'.")
  if (!gpu && options.backend !== 'auto' && options.adapter !== undefined)
    throw unsupported('adapter', choice.backend, "Choose backend: 'gpu', or leave adapter out.")
  if (gpu && options.profile) throw unsupported('profile', choice.backend, "Leave profile out, or choose backend: 'wasm'.")
  return choice
}

async function automaticBackend(options: ResolvedOptions): Promise<BackendChoice> {
  if (!hasGpu()) return { backend: 'wasm', reason: 'the system has no GPU device' }
  const adapter = await findAdapter({ adapter: options.adapter, checks: true }).catch(() => undefined)
  if (!adapter) return { backend: 'wasm', reason: 'no GPU adapter answers' }
  if (adapter.software && options.adapter === undefined) return { backend: 'wasm', reason: `the only adapter is software: ${adapter.description}` }
  return { backend: 'gpu', reason: `${adapter.description || adapter.device} answers` }
}

/** On Linux a GPU has a device file; elsewhere the driver is asked. */
export function hasGpu(): boolean {
  if (process.platform !== 'linux') return true
  const renders = existsSync('/dev/dri') && readdirSync('/dev/dri').some((name) => name.startsWith('render'))
  return renders || existsSync('/dev/nvidiactl') || existsSync('/dev/dxg')
}

function unsupported(what: string, backend: string, remedy: string): OptionError {
  return new OptionError('OPTION_INVALID', {
    what: `the ${backend} backend does not have this option`,
    expected: 'options that it has',
    actual: what,
    remedy,
  })
}
