// What this machine offers Tetrad, what 'auto' makes of it, and what is missing. Gathers plain data; starts no rank, takes no device.
import { availableParallelism, freemem } from 'node:os'
import type { BackendName } from '../../../kernels/backend.js'
import type { AdapterDescription } from '../../../kernels/gpu/adapter.js'
import { describeAdapter, listAdapters, loadDawn } from '../../../kernels/gpu/context.js'
import { bestSimdLevel, SIMD_LEVELS, type SimdLevel } from '../../../kernels/wasm/simd-level.js'
import type { RankCount } from '../../../workers/protocol.js'
import { assetUrl } from '../../assets.js'
import { resolveOptions } from '../../engine/choose-backend.js'
import { availableMemory } from '../../engine/memory.js'
import { OptionError } from '../../errors.js'
import { checkNames } from '../../options/check.js'
import { automaticRanks, type CheckedOptions, checkOptions } from '../../options/engine-options.js'
import { VERSION } from '../../version.js'
import { findMissing, type Missing } from './missing.js'
import { coreQuota, type GpuSystem, lookForGpus } from './system.js'

export interface DoctorOptions {
  /** Part of a GPU adapter's name, as Engine.load takes it. */
  adapter?: string
}

export interface Diagnosis {
  readonly tetrad: string
  readonly node: string
  /** As linux-x64. */
  readonly platform: string
  /** As Node counts them, and the cores' worth of time that the cgroup allows, if it limits it. */
  readonly cores: number
  readonly coreQuota?: number
  readonly memoryBytes: number
  /** Builds of the wasm kernels that run here, the best last. */
  readonly simd: readonly SimdLevel[]
  readonly gpu: GpuSystem & {
    /** Why Dawn, which the gpu backend runs on, can't be loaded. */
    readonly dawnError?: string
    readonly adapters: readonly AdapterDescription[]
    /** What the driver was asked and did not answer in time, or answered with an error. */
    readonly unanswered: readonly string[]
  }
  /** The adapter that was asked for. */
  readonly adapter?: string
  /** What backend: 'auto' and ranks: 'auto' are here. No backend: the adapter that was asked for does not answer. */
  readonly auto: { readonly backend?: BackendName; readonly reason: string; readonly ranks: RankCount }
  /** What is missing, and how to mend it. Empty: nothing is. */
  readonly missing: readonly Missing[]
}

/** Drivers answer in tens of milliseconds; one that needs so much longer hangs. */
const DEADLINE_MS = 20_000

/** Never fails for what the machine lacks. Throws OptionError for options that it does not know. */
export async function doctor(options: DoctorOptions = {}): Promise<Diagnosis> {
  const { adapter } = checkNames('doctor', options, ['adapter']) as DoctorOptions
  const checked = checkOptions(adapter === undefined ? {} : { adapter })
  const unanswered: string[] = []
  const cores = availableParallelism()
  const quota = coreQuota()
  const dawnError = await loadDawn().then(
    () => undefined,
    (error: Error) => messageOf(error.cause),
  )
  const adapters = dawnError === undefined ? await describeAdapters(unanswered) : []
  const choice = await ask('which backend is automatic', chooseOrTell(checked), unanswered)
  const facts = {
    tetrad: VERSION,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    cores,
    ...(quota === undefined ? {} : { coreQuota: quota }),
    // Too old a Node lacks the better measure, and it is here that its user learns so.
    memoryBytes: typeof process.availableMemory === 'function' ? availableMemory() : freemem(),
    simd: SIMD_LEVELS.slice(0, SIMD_LEVELS.indexOf(bestSimdLevel(assetUrl('dist/kernels/wasm/'))) + 1),
    gpu: { ...lookForGpus(), ...(dawnError === undefined ? {} : { dawnError }), adapters, unanswered },
    ...(adapter === undefined ? {} : { adapter }),
    auto: { ...(choice ?? { reason: 'the driver does not answer' }), ranks: choice?.ranks ?? automaticRanks(cores) },
  }
  return { ...facts, missing: findMissing(facts) }
}

async function describeAdapters(unanswered: string[]): Promise<AdapterDescription[]> {
  const names = (await ask('which adapters there are', listAdapters(), unanswered)) ?? []
  const adapters: AdapterDescription[] = []
  // One after another: drivers crash where several are opened at once.
  for (const [i, name] of names.entries()) {
    // Dawn takes the first whose name has the one asked for in it.
    const other = names.slice(0, i).find((earlier) => earlier.includes(name))
    if (other !== undefined) unanswered.push(`${name} can't be asked for alone: ${other}, whose name has it in it, answers first`)
    const described = other === undefined ? await ask(`what ${name} has`, describeAdapter(name), unanswered) : undefined
    if (described) adapters.push(described)
  }
  return adapters
}

/** An adapter that does not answer to its name is a finding here. */
async function chooseOrTell(checked: CheckedOptions): Promise<{ backend?: BackendName; reason: string; ranks?: RankCount }> {
  try {
    const { options, backendReason } = await resolveOptions(checked)
    return { backend: options.backend, reason: backendReason, ranks: options.ranks }
  } catch (error) {
    if (error instanceof OptionError) return { reason: error.what }
    throw error
  }
}

/** The answer, or undefined where there is none in time; then `unanswered` says why. */
async function ask<T>(question: string, answer: Promise<T>, unanswered: string[]): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${DEADLINE_MS / 1000} s`)), DEADLINE_MS)
  })
  try {
    return await Promise.race([answer, late])
  } catch (error) {
    unanswered.push(`${question}: ${messageOf(error)}`)
    return undefined
  } finally {
    clearTimeout(timer)
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
