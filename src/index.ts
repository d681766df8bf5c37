// Tetrad's public surface.
export { type Converted, type ConvertOptions, convert } from './checkpoint/convert.js'
export type { EngineOptions, LoadProgress } from './config/engine-options.js'
export { type Diagnosis, type DoctorOptions, doctor } from './doctor/doctor.js'
export type { Missing } from './doctor/missing.js'
export type { RestartEvent } from './engine/coordinator.js'
export { Engine, type IndexedChunk } from './engine/engine.js'
export type { EngineInfo, EngineStats } from './engine/engine-info.js'
export type { Chunk, Completion, Generation, Timings, TokenLogprobs, Usage } from './engine/generation.js'
export type { RankCounters } from './engine/mailbox.js'
export { formatProfile, type Profile, type ProfilePart } from './engine/profile.js'
export type { Prompt } from './engine/prompts.js'
export type { FinishReason } from './engine/sequence.js'
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
export type { LogLikelihood, MultipleChoiceItem, MultipleChoiceOptions, MultipleChoiceResult, ScoredItem } from './eval/multiple-choice.js'
export type { PerplexityOptions, PerplexityResult } from './eval/perplexity.js'
export { type Inspection, inspect, inspectConfig } from './inspect.js'
export type { GenerateParams, ManyParams } from './sampling/params.js'
export { type Synthesized, type SynthOptions, synthesize } from './synth/synthesize.js'
