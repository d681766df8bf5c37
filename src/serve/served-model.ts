// What the HTTP server, the batch runner and the NATS service need of a model, whatever computes it: an engine of this process, a pool of
// replica processes, or replicas in a NATS cluster.
import type { AdapterInfo } from '../engine/adapters/adapter-store.js'
import type { Engine, IndexedChunk } from '../engine/engine.js'
import type { EngineStats } from '../engine/engine-info.js'
import type { Completion, Generation } from '../engine/generation.js'
import type { Prompt } from '../engine/prompts.js'
import type { GenerateManyParams } from '../options/public-types.js'
import type { ChatTemplate } from '../tokenizer/chat-template.js'

export type ServedEngine = Pick<Engine, 'detokenize' | 'info' | 'tokenize' | 'tokenPiece'> & {
  generateMany(prompts: readonly Prompt[], params: GenerateManyParams): Generation<Completion[], IndexedChunk>
  stats(): EngineStats
  close(options?: { drainMs?: number }): Promise<void>
  /** Why no request can be answered any more, for good; undefined while the engine works. */
  readonly failure: Error | undefined
  /** false: no replica accepts requests at the moment. Absent means true. */
  readonly available?: boolean
  /** Adapters that requests may have. Absent: none. */
  readonly adapters?: readonly Pick<AdapterInfo, 'name'>[]
  /** Absent: adapters stay as they are. */
  loadAdapter?(name: string, dir: string): Promise<unknown>
  unloadAdapter?(name: string): Promise<void>
}

export interface ServedModel {
  readonly id: string
  readonly engine: ServedEngine
  readonly template: ChatTemplate
  /** Of an adapter: the model that it is for. */
  readonly parent?: string
  /** Seconds since 1970. */
  readonly created: number
  /** Hash of the model's files and its determinism key, if it was computed: equal fingerprints give equal texts for a seed. */
  readonly fingerprint?: string | undefined
}
