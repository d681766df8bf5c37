// Tetrad's public surface.

export { EMBEDDED_MODEL } from './assets.js'
export { Engine, type IndexedChunk } from './engine/engine.js'
export type { EngineInfo, EngineStats } from './engine/engine-info.js'
export type { Chunk, Completion, Generation, Timings, TokenLogprobs, Usage } from './engine/generation.js'
export type { Prompt } from './engine/prompts.js'
export type { RestartEvent } from './engine/ranks/coordinator.js'
export type { RankCounters } from './engine/ranks/mailbox.js'
export { formatProfile, type Profile, type ProfilePart } from './engine/ranks/profile.js'
export type { FinishReason } from './engine/scheduling/sequence.js'
export {
  BatchError,
  CheckpointError,
  ClusterError,
  EngineClosedError,
  ERROR_CODES,
  type ErrorCode,
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
export type { EngineOptions, GenerateManyParams, GenerateParams, LoadProgress } from './options/public-types.js'
export { type ConvertOptions, type ConvertResult, convert } from './tools/convert.js'
export type { Diagnosis, Finding, FindingCode } from './tools/doctor/diagnosis.js'
export { type DoctorOptions, doctor } from './tools/doctor/doctor.js'
export { type Inspection, inspect, inspectConfig } from './tools/inspect.js'
export { type SynthOptions, type SynthResult, synthesize } from './tools/synth/synthesize.js'
