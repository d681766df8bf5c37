// Flags that several commands have, and how their values are read. Engine.load and the calls check what they mean.
import { fileURLToPath } from 'node:url'
import { type Command, InvalidArgumentError } from 'commander'
import { assetUrl } from '../assets.js'
import type { EngineOptions } from '../options/engine-options.js'

export const DEFAULT_MODEL = fileURLToPath(assetUrl('models/tiny'))

export interface EngineFlags {
  ranks: 'auto' | number
  backend: string
  adapter?: string[]
  gpuKernels?: string
  weights: string
  cache: string
  variant?: string
  simd: string
  maxContext?: number
  cacheTokens?: number
  maxRunning?: number
  maxQueue?: number
  prefillChunk?: number
  stepDeadlineMs?: number
  maxRestarts?: number
  json?: boolean
}

export function number(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || Number.isNaN(value)) throw new InvalidArgumentError('It must be a number.')
  return value
}

function ranks(text: string): 'auto' | number {
  return text === 'auto' ? text : number(text)
}

/** A flag that may be given several times. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value]
}

export function ids(text: string): number[] {
  return text.split(',').map(number)
}

export function engineOptions(flags: EngineFlags): EngineOptions {
  const { ranks, backend, adapter, gpuKernels, simd, weights, cache, variant, maxContext } = flags
  const { cacheTokens, maxRunning, maxQueue, prefillChunk, stepDeadlineMs, maxRestarts } = flags
  const sizes = { maxContext, cacheTokens, maxRunning, maxQueue, prefillChunk, stepDeadlineMs, maxRestarts }
  // Engine.load checks the values; the cast only lets them through to it.
  return { ranks, backend, simd, weights, cache, ...given({ adapter, gpuKernels, variant, ...sizes }) } as EngineOptions
}

/** The options that were given. */
export function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> }
}

export function withEngineFlags(command: Command): Command {
  return command
    .option('--ranks <n>', 'worker threads that share the model: auto, 1, 2 or 4', ranks, 'auto')
    .option('--backend <name>', 'auto, gpu, wasm or reference (float64, slow)', 'auto')
    .option('--adapter <name>', "part of the GPU adapter's name; again for the next rank's; a software adapter must be named", collect)
    .option('--gpu-kernels <kind>', 'auto (hand-written where the adapter can), or gpu.js (slow)')
    .option('--simd <level>', 'wasm kernels: auto, relaxed (fused multiply-add) or simd128', 'auto')
    .option('--weights <format>', 'weights in memory: auto (as stored), f32, bf16 or int8', 'auto')
    .option('--cache <format>', 'cached latents: f32, bf16, int8 (wasm), or f16 (gpu)', 'f32')
    .option('--variant <name>', 'attention variant, where the keys do not tell it (mla_no_scale)')
    .option('--max-context <n>', "most tokens of a request (default: the model's block_size)", number)
    .option('--cache-tokens <n>', 'tokens that the cache holds, all requests together (default: by the free memory)', number)
    .option('--max-running <n>', 'requests that run at once, 1 to 256 (default: 32)', number)
    .option('--max-queue <n>', 'requests that wait beyond those (default: 1024)', number)
    .option('--prefill-chunk <n>', "a prompt's tokens in one step, 1 to 4096 (default: 64)", number)
    .option('--step-deadline-ms <n>', 'milliseconds that a rank may let the others wait (default: 30000)', number)
    .option('--max-restarts <n>', 'restarts of the ranks within a minute before the engine fails (default: 5)', number)
    .option('--json', 'print one line of JSON on stdout and nothing else there')
}

export function withModelFlag(command: Command): Command {
  return withEngineFlags(command).option('--model <dir>', 'model directory', DEFAULT_MODEL)
}
