// Tetrad's public surface: everything that it refers to is exported here too (test/api.test.ts).

export type { BackendName } from '../kernels/backend.js'
export type { CacheFormat } from '../kernels/cache-format.js'
export type { AdapterDescription, AdapterFacts } from '../kernels/gpu/adapter.js'
export type { SimdLevel } from '../kernels/wasm/simd-level.js'
export type { FloatFormat, WeightFormat } from '../kernels/weight-format.js'
export type { DispatchFacts, DispatchList, Phase, RankCount, Stage } from '../workers/protocol.js'
export { EMBEDDED_MODEL } from './assets.js'
export type { StructuralTag } from './constraints/sources.js'
export type { AdapterInfo } from './engine/adapters/adapter-store.js'
export { type AdapterOption, type ChatParams, Engine, type IndexedChunk } from './engine/engine.js'
export type { EngineInfo, EngineStats } from './engine/engine-info.js'
export type { Chunk, Completion, Generation, Timings, TokenLogprobs, Usage } from './engine/generation.js'
export type { RankPlan } from './engine/model.js'
export type { Prompt } from './engine/prompts.js'
export type { RestartEvent } from './engine/ranks/coordinator.js'
export type { RankCounters } from './engine/ranks/mailbox.js'
export { formatProfile, type Profile, type ProfilePart } from './engine/ranks/profile.js'
export type { HistogramData } from './engine/ranks/statistics.js'
export type { FinishReason } from './engine/scheduling/sequence.js'
export type { ErrorFacts } from './errors.js'
export {
  AdapterError,
  BatchError,
  CheckpointError,
  ClusterError,
  EngineClosedError,
  ERROR_CODES,
  type ErrorCode,
  HubError,
  MemoryError,
  OptionError,
  OverloadedError,
  RankError,
  ReplicaError,
  RequestError,
  SnapshotError,
  TetradError,
} from './errors.js'
export type { LogLikelihood, MultipleChoiceItem, MultipleChoiceOptions, MultipleChoiceResult, ScoredItem } from './evaluation/multiple-choice.js'
export type { PerplexityOptions, PerplexityResult } from './evaluation/perplexity.js'
export { type PullOptions, type PullResult, pull } from './hub/pull-model.js'
export type { DownloadProgress, EngineOptions, GenerateManyParams, GenerateParams, LoadProgress } from './options/public-types.js'
export type { ChatMessage, TemplateOptions } from './tokenizer/chat-template.js'
export type { TokenPiece } from './tokenizer/token-pieces.js'
export type { MarkedText } from './tokenizer/tokenizer-interface.js'
export { type ConvertOptions, type ConvertResult, convert } from './tools/convert.js'
export type { Diagnosis, Finding, FindingCode } from './tools/doctor/diagnosis.js'
export { type DoctorOptions, doctor } from './tools/doctor/doctor.js'
export type { GpuSystem } from './tools/doctor/system.js'
export type { CacheCost } from './tools/inspect.js'
export { type Inspection, inspect, inspectConfig } from './tools/inspect.js'
export { type SynthOptions, type SynthResult, synthesize } from './tools/synth/synthesize.js'
