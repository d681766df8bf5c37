// Options of Engine.load: one entry for each. The API's types, the checks, the flags and the documentation come from this table
// (npm run docs:options). Knows nothing of the model.
import { availableParallelism } from 'node:os'
import type { BackendName } from '../../kernels/backend.js'
import { CACHE_FORMAT_NAMES, CACHE_FORMATS } from '../../kernels/cache-formats.js'
import { SIMD_LEVELS } from '../../kernels/wasm/simd-level.js'
import { WEIGHT_FORMAT_NAMES, WEIGHT_FORMATS } from '../../kernels/weight-formats.js'
import { PARTITIONS, RANK_COUNTS, type RankCount } from '../../workers/protocol.js'
import { VARIANT_NAMES } from '../model/attention-variants.js'
import { ADAPTERS } from './adapter-entries.js'
import { type Caller, spelled } from './caller.js'
import { invalidOption, isFunction, show } from './check.js'
import { type Checked, choice, type Entry, flag, instance, int } from './entry.js'
import { LIMITS } from './limits.js'
import type { DownloadProgress, EngineOptions, LoadProgress } from './public-types.js'
import { checkTable } from './table.js'

export const ENGINE_OPTIONS = {
  ranks: choice({
    values: ['auto', ...RANK_COUNTS],
    default: 'auto',
    flag: '<n>',
    doc: "worker threads that share the model's four shards",
    more: "'auto' is the largest count not above the number of cores. On a GPU it is the largest not above the number of adapters that are named: ranks on one card would share its time.",
  }),
  backend: choice({
    values: ['auto', 'gpu', 'wasm', 'reference'],
    default: 'auto',
    doc: 'where the kernels run',
    more: "'gpu': each rank has its own device, through gpu.js. 'wasm': WebAssembly SIMD. 'reference': float64, slow, the oracle. 'auto' takes the GPU if a hardware adapter answers, otherwise wasm; it takes wasm for cache: 'int8', partition: 'sequence' and adapters, which the GPU does not support.",
  }),
  adapter: adapters({
    doc: "part of the GPU adapter's name, or several: rank i uses the one at index i mod n",
    more: "A software adapter is used only if it is named. Without this option all ranks share the first hardware adapter. Cards with the same name are distinguished by PCI address in Mesa's form, pci-0000_65_00_0, where Mesa's device-select layer is installed. Nothing checks that the layer obeyed: look at the driver's own tool.",
  }),
  gpuChecks: flag({
    doc: 'check bounds in GPU kernels and validate commands',
    more: 'Slower; for finding errors.',
  }),
  gpuKernels: choice({
    values: ['auto', 'gpu.js'],
    default: 'auto',
    flag: '<kind>',
    doc: 'which GPU kernels run',
    more: "'auto': hand-written WGSL for matrix products and attention where the adapter has 256 threads and 16 KiB of memory per workgroup, otherwise gpu.js. 'gpu.js': gpu.js compiles these too (f32 cache, f32 or bf16 weights); many times slower.",
  }),
  variant: choice({
    values: VARIANT_NAMES,
    default: undefined,
    type: 'string',
    defaultText: "what the tensors' names and shapes show, or config.json's `variant`",
    doc: 'attention variant',
    more: 'Needed for mla_no_scale, gla_2_no_scale and mlra_2_no_scale, whose tensors look like those of mla, gla_2 and mlra_2.',
  }),
  simd: choice({
    values: ['auto', ...SIMD_LEVELS],
    default: 'auto',
    flag: '<level>',
    doc: 'build of the WebAssembly kernels',
    more: "'relaxed': relaxed SIMD with fused multiply-add, a third faster. 'simd128': the same bits on every JavaScript engine and processor. 'auto': relaxed where it is available. The level is part of the determinism key.",
  }),
  draft: path({
    doc: 'model that guesses tokens ahead: a directory, a .gguf file or hf:owner/name',
    more: "The output is the same, in fewer steps where the guesses are right. It must have the model's vocabulary and tokenizer, and runs on the CPU, with one rank and a cache of its own. Requests with speculate use that instead; requests with a constraint use neither.",
  }),
  draftTokens: int({
    min: 1,
    max: 32,
    default: undefined,
    defaultText: '11',
    doc: 'most tokens that the draft model guesses in a step of a request',
    more: 'The first guesses are five; more follow while all are right, fewer while some are wrong, and none for up to 64 tokens where none was right.',
  }),
  weights: choice({
    values: ['auto', ...WEIGHT_FORMAT_NAMES],
    default: 'auto',
    flag: '<format>',
    doc: 'format of the weights in memory',
    more: `'auto': the stored type; float16 and mixed types become f32, a GGUF file with q8_0 or q4_0 becomes int8, and int4 if all of its matrices are q4_0 and shards are cut between blocks. ${WEIGHT_FORMAT_NAMES.map((name) => `'${name}': ${WEIGHT_FORMATS[name].summary}`).join(' ')}`,
  }),
  cache: choice({
    values: CACHE_FORMAT_NAMES,
    default: 'f32',
    flag: '<format>',
    doc: 'format of the key/value cache',
    more: CACHE_FORMAT_NAMES.map((name) => `'${name}': ${CACHE_FORMATS[name].summary}`).join(' '),
  }),
  partition: choice({
    values: [...PARTITIONS, 'auto'],
    default: 'heads',
    doc: 'how ranks share the key/value cache',
    more: "'heads': a rank caches what its heads attend over; what several ranks need, each of them has. 'sequence': a rank caches a quarter of the pages for each of its shards, and attends over them with all heads: exact, with two more exchanges a layer. 'auto': 'sequence' for models whose ranks would cache the same, from a maxContext of 32768 tokens on. Not on a GPU. The partition is part of the determinism key.",
  }),
  prefillChunk: int({
    min: 1,
    max: 4096,
    default: undefined,
    defaultText: '64, on a GPU up to 1024',
    doc: 'prompt tokens in one step',
    more: 'It never changes a bit of the output. Sequences that decode wait for a step of a prompt: by default a GPU takes as many tokens as end within 250 ms, and within 60 ms where others decode, but 32 in any case.',
  }),
  maxContext: int({
    min: 1,
    max: LIMITS.context,
    default: undefined,
    defaultText: "the model's context, or its sliding window",
    doc: 'largest number of tokens of a request, prompt and output',
    more: 'If the cache holds less, that is the limit (info.contextTokens), and a warning says so. Beyond its own context the model was not trained: rotary positions continue, and a warning says so.',
  }),
  maxRunning: int({ min: 1, max: 256, default: 32, doc: 'requests that run at the same time' }),
  maxQueue: int({
    min: 0,
    max: 1_000_000,
    default: 1024,
    doc: 'requests that may wait beyond those that run',
    more: 'A further request is rejected with an OverloadedError.',
  }),
  cacheTokens: int({
    min: 1,
    max: 2 ** 31,
    default: undefined,
    defaultText: 'see cacheBytes',
    doc: 'size of the key/value cache in tokens, all requests together',
    more: 'Not together with cacheBytes.',
  }),
  cacheBytes: int({
    min: 1,
    max: Number.MAX_SAFE_INTEGER,
    default: undefined,
    defaultText: 'a quarter of the free memory, at most maxRunning full contexts, 3 GiB per rank on the CPU and 1 GiB per layer and rank on a GPU',
    doc: 'size of the key/value cache in bytes, all ranks together',
    more: 'Not together with cacheTokens.',
  }),
  adapters: ADAPTERS,
  maxAdapters: int({
    min: 0,
    max: 256,
    default: 8,
    doc: 'low-rank adapters that may be loaded at the same time',
  }),
  maxAdapterRank: int({
    min: 1,
    max: 1024,
    default: 64,
    doc: 'largest rank of an adapter',
    more: 'Buffers are sized by it once an adapter is loaded.',
  }),
  adapterBytes: int({
    min: 1,
    max: 2 ** 32,
    default: 2 ** 30,
    doc: 'memory of all adapters together in bytes',
    more: 'It is taken as adapters come.',
  }),
  maxRestarts: int({
    min: 0,
    max: 1000,
    default: 5,
    doc: 'restarts of the ranks within restartWindowMs before the engine fails for good',
  }),
  restartWindowMs: int({
    min: 1,
    max: 86_400_000,
    default: 60_000,
    flag: '<ms>',
    doc: 'milliseconds over which restarts are counted',
  }),
  stepDeadlineMs: int({
    min: 10,
    max: 3_600_000,
    default: 30_000,
    flag: '<ms>',
    doc: 'longest time in ms that a rank may keep the others waiting, or that a step may make no progress',
    more: 'Then the ranks are restarted.',
  }),
  profile: flag({
    flag: false,
    doc: 'record how long every kernel and wait takes, for engine.profile()',
    more: 'It costs some speed. On the command line: `generate --profile FILE`.',
  }),
  onProgress: instance<(progress: LoadProgress) => void>({
    type: '(progress: LoadProgress) => void',
    is: isFunction,
    expected: 'a function',
    doc: 'called while weights are read',
  }),
  onDownload: instance<(progress: DownloadProgress) => void>({
    type: '(progress: DownloadProgress) => void',
    is: isFunction,
    expected: 'a function',
    doc: 'called while a model hf:owner/name is downloaded',
  }),
  signal: instance<AbortSignal>({
    type: 'AbortSignal',
    is: (value): value is AbortSignal => value instanceof AbortSignal,
    expected: 'an AbortSignal',
    doc: 'stops loading, which then rejects with LOAD_ABORTED',
  }),
} as const

/** The options with every constant default filled in; what depends on the machine or the checkpoint is still 'auto' or undefined. */
export type CheckedOptions = Checked<typeof ENGINE_OPTIONS>

/** The options once the machine was asked: the backend and the number of ranks are decided. */
export interface ResolvedOptions extends Omit<CheckedOptions, 'ranks' | 'backend'> {
  readonly ranks: RankCount
  readonly backend: BackendName
}

/** Throws OptionError OPTION_UNKNOWN or OPTION_INVALID, in the caller's spelling. */
export function checkOptions(options: EngineOptions = {}, caller: Caller = 'api'): CheckedOptions {
  const checked = checkTable(ENGINE_OPTIONS, 'Engine.load', options, caller)
  if (checked.cacheTokens !== undefined && checked.cacheBytes !== undefined) {
    const [tokens, bytes] = [spelled('cacheTokens', caller), spelled('cacheBytes', caller)]
    throw invalidOption({
      what: `${tokens} and ${bytes} are both given`,
      expected: 'one of them',
      actual: 'both',
      remedy: 'Omit one.',
      option: bytes,
    })
  }
  if (checked.draftTokens !== undefined && checked.draft === undefined) {
    const [tokens, draft] = [spelled('draftTokens', caller), spelled('draft', caller)]
    throw invalidOption({
      what: `${tokens} is given without ${draft}`,
      expected: `${draft}, or neither`,
      actual: `${tokens} alone`,
      remedy: `Give ${draft}, or omit ${tokens}.`,
      option: tokens,
    })
  }
  return checked
}

/** The options for a backend that is known, with the number of ranks that it gives. */
export function resolveFor(backend: BackendName, options: CheckedOptions): ResolvedOptions {
  const { ranks, adapter } = options
  return Object.freeze({ ...options, backend, ranks: ranks === 'auto' ? ranksOf(backend, adapter) : ranks })
}

/** What 'auto' ranks are on a backend. availableParallelism honours affinity and, from Node 22 on, cgroup quotas. */
export function ranksOf(backend: BackendName, adapters: readonly string[]): RankCount {
  return automaticRanks(backend === 'gpu' ? adapters.length : availableParallelism())
}

/**
 * The largest rank count not above the number of cores: the faster one of 1 and 2 on 2 quiet cores at every size and format that was
 * measured (docs/performance.md, "How many ranks").
 */
export function automaticRanks(cores: number): RankCount {
  return cores >= 4 ? 4 : cores >= 2 ? 2 : 1
}

/** A model, as Engine.load takes it. */
function path(spec: { readonly doc: string; readonly more: string }): Entry<string, string | undefined> {
  return {
    ...spec,
    type: 'string',
    range: '',
    defaultText: '',
    flag: { value: '<model>', repeats: false, parse: (text) => text },
    http: undefined,
    check: (value, name) => {
      if (value === undefined || (typeof value === 'string' && value !== '')) return value
      throw invalidOption({
        what: `${name} has the wrong type`,
        expected: 'the path of a model, or hf:owner/name',
        actual: show(value),
        remedy: `Pass a path, or omit ${name}.`,
        option: name,
      })
    },
  }
}

/** Names of GPU adapters: not empty, one for each rank at most. */
function adapters(spec: { readonly doc: string; readonly more: string }): Entry<string | readonly string[], readonly string[]> {
  const isName = (v: unknown): v is string => typeof v === 'string' && v.length > 0
  const isList = (v: unknown): v is readonly string[] => Array.isArray(v) && v.length > 0 && v.every(isName)
  return {
    ...spec,
    type: 'string | readonly string[]',
    range: '',
    defaultText: 'the first hardware adapter',
    flag: { value: '<name>', repeats: true, parse: (text) => text },
    http: undefined,
    check: (value, name) => {
      if (value === undefined) return []
      if (isName(value)) return Object.freeze([value])
      if (isList(value)) return Object.freeze([...value])
      throw invalidOption({
        what: `${name} has the wrong type`,
        expected: 'part of an adapter name, or a list of them',
        actual: show(value),
        remedy: `Pass a name, or omit ${name}.`,
        option: name,
      })
    },
  }
}
