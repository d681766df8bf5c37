// What this machine has, what 'auto' chooses on it, and what is missing. Collects plain data; starts no rank and takes no GPU device.
import { availableParallelism, freemem } from 'node:os'
import type { AdapterDescription } from '../../../kernels/gpu/adapter.js'
import { describeAdapter, listAdapters, loadDawn } from '../../../kernels/gpu/context.js'
import { bestSimdLevel, SIMD_LEVELS } from '../../../kernels/wasm/simd-level.js'
import { assetUrl } from '../../assets.js'
import { resolveOptions } from '../../engine/choose-backend.js'
import { availableMemory } from '../../engine/memory.js'
import { OptionError } from '../../errors.js'
import { checkNames } from '../../options/check.js'
import { automaticRanks, type CheckedOptions, checkOptions } from '../../options/engine-options.js'
import { VERSION } from '../../version.js'
import type { Diagnosis } from './diagnosis.js'
import { findMissing } from './findings.js'
import { coreQuota, lookForGpus } from './system.js'

/** Options of doctor. */
export interface DoctorOptions {
  /** Part of a GPU adapter's name, as Engine.load takes it. */
  adapter?: string
}

/** Drivers answer in tens of milliseconds. One that needs longer than this hangs. */
const DEADLINE_MS = 20_000

/** Never rejects because something is missing. Rejects with OptionError for unknown options. */
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
    // A Node that is too old lacks process.availableMemory, and the doctor must still report that.
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
  // One after another: drivers crash if several devices are opened at once.
  for (const [i, name] of names.entries()) {
    // Dawn takes the first adapter whose name contains the one asked for.
    const other = names.slice(0, i).find((earlier) => earlier.includes(name))
    if (other !== undefined) unanswered.push(`${name} cannot be selected: ${other}, whose name contains it, answers first`)
    const described = other === undefined ? await ask(`what ${name} has`, describeAdapter(name), unanswered) : undefined
    if (described) adapters.push(described)
  }
  return adapters
}

/** An adapter that does not answer is a finding here, not an error. */
async function chooseOrTell(checked: CheckedOptions): Promise<Partial<Diagnosis['auto']> & Pick<Diagnosis['auto'], 'reason'>> {
  try {
    const { options, backendReason } = await resolveOptions(checked)
    return { backend: options.backend, reason: backendReason, ranks: options.ranks }
  } catch (error) {
    if (error instanceof OptionError) return { reason: error.what }
    throw error
  }
}

/** The answer, or undefined if there is none in time; then `unanswered` says why. */
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
