// Made from the option tables by `npm run docs:options`: change src/options/engine-options.ts or generate-params.ts, not this file.

import type { StructuralTag } from '../constraints/sources.js'

/** How far loading is. */
export interface LoadProgress {
  /** Bytes of the checkpoint that were read so far. */
  readonly loadedBytes: number
  /** Bytes of the checkpoint that will be read. */
  readonly totalBytes: number
}

/** How far the download of a model is. */
export interface DownloadProgress {
  /** The file that is being downloaded. */
  readonly file: string
  /** Bytes that are on disk, those of earlier attempts included. */
  readonly downloadedBytes: number
  /** Bytes of all files that are known to be missing. It grows once, when the index of a large model was read. */
  readonly totalBytes: number
  /** Over the last seconds. */
  readonly bytesPerSecond: number
  /** At this speed; undefined: nothing came yet. */
  readonly secondsLeft: number | undefined
}

/** Options of Engine.load. An unknown name or a value out of range throws OptionError. */
export interface EngineOptions {
  /**
   * Worker threads that share the model's four shards. Default: auto. 'auto' is the largest count not above the
   * number of cores. On a GPU it is the largest not above the number of adapters that are named: ranks on one card
   * would share its time.
   */
  ranks?: 'auto' | 1 | 2 | 4
  /**
   * Where the kernels run. Default: auto. 'gpu': each rank has its own device, through gpu.js. 'wasm': WebAssembly
   * SIMD. 'reference': float64, slow, the oracle. 'auto' takes the GPU if a hardware adapter answers, otherwise
   * wasm; it takes wasm for cache: 'int8', partition: 'sequence' and adapters, which the GPU does not support.
   */
  backend?: 'auto' | 'gpu' | 'wasm' | 'reference'
  /**
   * Part of the GPU adapter's name, or several: rank i uses the one at index i mod n. Default: the first hardware
   * adapter. A software adapter is used only if it is named. Without this option all ranks share the first
   * hardware adapter. Cards with the same name are distinguished by PCI address in Mesa's form, pci-0000_65_00_0,
   * where Mesa's device-select layer is installed. Nothing checks that the layer obeyed: look at the driver's own
   * tool.
   */
  adapter?: string | readonly string[]
  /** Check bounds in GPU kernels and validate commands. Default: false. Slower; for finding errors. */
  gpuChecks?: boolean
  /**
   * Which GPU kernels run. Default: auto. 'auto': hand-written WGSL for matrix products and attention where the
   * adapter has 256 threads and 16 KiB of memory per workgroup, otherwise gpu.js. 'gpu.js': gpu.js compiles these
   * too (f32 cache, f32 or bf16 weights); many times slower.
   */
  gpuKernels?: 'auto' | 'gpu.js'
  /**
   * Attention variant. Default: what the tensors' names and shapes show, or config.json's `variant`. Needed for
   * mla_no_scale, gla_2_no_scale and mlra_2_no_scale, whose tensors look like those of mla, gla_2 and mlra_2.
   */
  variant?: string
  /**
   * Build of the WebAssembly kernels. Default: auto. 'relaxed': relaxed SIMD with fused multiply-add, a third
   * faster. 'simd128': the same bits on every JavaScript engine and processor. 'auto': relaxed where it is
   * available. The level is part of the determinism key.
   */
  simd?: 'auto' | 'simd128' | 'relaxed'
  /**
   * Model that guesses tokens ahead: a directory, a .gguf file or hf:owner/name. The output is the same, in fewer
   * steps where the guesses are right. It must have the model's vocabulary and tokenizer, and runs on the CPU,
   * with one rank and a cache of its own. Requests with speculate use that instead; requests with a constraint use
   * neither.
   */
  draft?: string
  /**
   * Most tokens that the draft model guesses in a step of a request: an integer, 1 to 32. Default: 11. The first
   * guesses are five; more follow while all are right, fewer while some are wrong, and none for up to 64 tokens
   * where none was right.
   */
  draftTokens?: number
  /**
   * Format of the weights in memory. Default: auto. 'auto': the stored type; float16 and mixed types become f32, a
   * GGUF file with q8_0 or q4_0 becomes int8, and int4 if all of its matrices are q4_0 and shards are cut between
   * blocks. 'f32': float32 as it is stored. 4 bytes a weight. 'bf16': bfloat16, rounded to nearest even. 2 bytes a
   * weight; sums are float32. 'int8': Integers of 8 bits with a scale for each row and block of 32 columns: 1.19
   * bytes a weight. On the CPU activations are quantized to 7 bits for each row and block of 32; on the GPU they
   * stay float32. The embedding keeps a float copy; norms stay float32. 'int4': Integers of 4 bits with a float16
   * scale for each row and block of 32 columns: 0.56 bytes a weight. On the CPU activations are quantized to 8
   * bits for each row and block of 32; on the GPU they stay float32. The embedding keeps a float copy; norms stay
   * float32.
   */
  weights?: 'auto' | 'f32' | 'bf16' | 'int8' | 'int4'
  /**
   * Format of the key/value cache. Default: f32. 'f32': float32. 4 bytes a value. All backends. 'bf16': bfloat16,
   * rounded to nearest even when a row is written. 2 bytes a value. All backends, but not with gpu.js kernels.
   * 'f16': float16, rounded to nearest even. 2 bytes a value. GPU only; attention runs on tensor cores where the
   * adapter has them. 'int8': Integers of 8 bits with a scale for each row and latent, and one for its values
   * where they lie beside the keys: 1 byte a value and 8 or 12 bytes a row. Scores are dot products with queries
   * of 7 bits. CPU only, and not for tpa.
   */
  cache?: 'f32' | 'bf16' | 'f16' | 'int8'
  /**
   * How ranks share the key/value cache. Default: heads. 'heads': a rank caches what its heads attend over; what
   * several ranks need, each of them has. 'sequence': a rank caches a quarter of the pages for each of its shards,
   * and attends over them with all heads: exact, with two more exchanges a layer. 'auto': 'sequence' for models
   * whose ranks would cache the same, from a maxContext of 32768 tokens on. Not on a GPU. The partition is part of
   * the determinism key.
   */
  partition?: 'heads' | 'sequence' | 'auto'
  /**
   * Prompt tokens in one step: an integer, 1 to 4096. Default: 64, on a GPU up to 1024. It never changes a bit of
   * the output. Sequences that decode wait for a step of a prompt: by default a GPU takes as many tokens as end
   * within 250 ms, and within 60 ms where others decode, but 32 in any case.
   */
  prefillChunk?: number
  /**
   * Largest number of tokens of a request, prompt and output: an integer, 1 to 16777216. Default: the model's
   * context, or its sliding window. If the cache holds less, that is the limit (info.contextTokens), and a warning
   * says so. Beyond its own context the model was not trained: rotary positions continue, and a warning says so.
   */
  maxContext?: number
  /** Requests that run at the same time: an integer, 1 to 256. Default: 32. */
  maxRunning?: number
  /**
   * Requests that may wait beyond those that run: an integer, 0 to 1000000. Default: 1024. A further request is
   * rejected with an OverloadedError.
   */
  maxQueue?: number
  /**
   * Size of the key/value cache in tokens, all requests together: an integer, 1 to 2147483648. Default: see
   * cacheBytes. Not together with cacheBytes.
   */
  cacheTokens?: number
  /**
   * Size of the key/value cache in bytes, all ranks together: an integer, 1 or more. Default: a quarter of the
   * free memory, at most maxRunning full contexts, 3 GiB per rank on the CPU and 1 GiB per layer and rank on a
   * GPU. Not together with cacheTokens.
   */
  cacheBytes?: number
  /**
   * Low-rank adapters (LoRA, as PEFT saves them) that are loaded with the model: directories by name. Default:
   * none. A request has one by the parameter lora. On the command line: --lora name=directory. On the CPU only.
   * See docs/lora.md.
   */
  adapters?: Readonly<Record<string, string>>
  /** Low-rank adapters that may be loaded at the same time: an integer, 0 to 256. Default: 8. */
  maxAdapters?: number
  /**
   * Largest rank of an adapter: an integer, 1 to 1024. Default: 64. Buffers are sized by it once an adapter is
   * loaded.
   */
  maxAdapterRank?: number
  /**
   * Memory of all adapters together in bytes: an integer, 1 to 4294967296. Default: 1073741824. It is taken as
   * adapters come.
   */
  adapterBytes?: number
  /**
   * Restarts of the ranks within restartWindowMs before the engine fails for good: an integer, 0 to 1000. Default:
   * 5.
   */
  maxRestarts?: number
  /** Milliseconds over which restarts are counted: an integer, 1 to 86400000. Default: 60000. */
  restartWindowMs?: number
  /**
   * Longest time in ms that a rank may keep the others waiting, or that a step may make no progress: an integer,
   * 10 to 3600000. Default: 30000. Then the ranks are restarted.
   */
  stepDeadlineMs?: number
  /**
   * Record how long every kernel and wait takes, for engine.profile(). Default: false. It costs some speed. On the
   * command line: `generate --profile FILE`.
   */
  profile?: boolean
  /** Called while weights are read. */
  onProgress?: (progress: LoadProgress) => void
  /** Called while a model hf:owner/name is downloaded. */
  onDownload?: (progress: DownloadProgress) => void
  /** Stops loading, which then rejects with LOAD_ABORTED. */
  signal?: AbortSignal
}

/** Parameters of engine.generate and engine.chat. An unknown name or a value out of range rejects with OptionError. */
export interface GenerateParams {
  /**
   * Largest number of tokens to generate: an integer, 0 or more. Default: 256. The context bounds it as well. With
   * 0 the prompt is computed and nothing is generated.
   */
  maxTokens?: number
  /**
   * Smallest number of tokens to generate: an integer, 0 or more. Default: 0. Before it, ids that end the text are
   * suppressed and stop strings are not searched for. At most maxTokens.
   */
  minTokens?: number
  /**
   * Logits are divided by it; 0 is greedy: 0, or from 0.001 to 100. Default: 0. Over HTTP the default is 1, as in
   * OpenAI's API.
   */
  temperature?: number
  /** Sample among the k most likely tokens: an integer, 1 to 2147483647. Default: all. */
  topK?: number
  /**
   * Sample among the most likely tokens whose probabilities add up to this: above 0 to 1. Default: 1. Applied
   * after topK.
   */
  topP?: number
  /**
   * Remove tokens less likely than this share of the most likely token's probability: from 0 to 1. Default: 0.
   * Applied after topP.
   */
  minP?: number
  /**
   * Sample among the tokens of typical surprise whose probabilities add up to this: above 0 to 1. Default: 1.
   * Typical: nearest to the expected surprise (the entropy). Applied after minP.
   */
  typicalP?: number
  /**
   * Divides positive logits, and multiplies negative ones, of tokens that occur in the prompt or the output: from
   * 0.01 to 10. Default: 1.
   */
  repetitionPenalty?: number
  /** Subtracted from the logit of each token that occurs in the output: from -10 to 10. Default: 0. */
  presencePenalty?: number
  /** Subtracted from the logit of each token as many times as it occurs in the output: from -10 to 10. Default: 0. */
  frequencyPenalty?: number
  /** Added to the logits of token ids before anything else: -1000 to 1000 each, at most 1024 entries. */
  logitBias?: Readonly<Record<number, number>>
  /**
   * Text that ends the output and is not part of it: a text of 1 to 1000 characters, or an array of at most 32 of
   * them. It may begin and end within tokens.
   */
  stop?: string | readonly string[]
  /** Token ids that end the output and are not part of it, beside the model's own: at most 32 token ids. */
  stopTokenIds?: readonly number[]
  /**
   * Report the log-probability of each token, and of the k most likely ones: an integer, 0 to 20. Natural
   * logarithms of the model's own distribution, before penalties, temperature and filters.
   */
  logprobs?: number
  /**
   * The same for the tokens of the prompt: an integer, 0 to 20. The whole prompt is computed for it, whatever is
   * cached.
   */
  promptLogprobs?: number
  /**
   * Makes sampling repeatable: an integer, 0 or more. Default: random, and reported with the completion. Equal
   * seeds give equal tokens whatever else the engine runs.
   */
  seed?: number
  /** Continue past the end-of-text token. Default: false. */
  ignoreEos?: boolean
  /** Leave special tokens out of the text. Default: true. Those that end the output are never part of it. */
  skipSpecialTokens?: boolean
  /**
   * Put the token that begins a document before the prompt, once. Default: as the tokenizer says, for a text
   * prompt. The published MLRA models saw <|endoftext|> before every document, and their tokenizer does not say
   * so.
   */
  bos?: boolean
  /**
   * Name of a loaded adapter that the request has. Without it the model alone answers. Over HTTP the adapter's
   * name as `model` does the same.
   */
  lora?: string
  /**
   * The output is JSON that is valid under this schema: a JSON Schema of at most 65536 characters. Keywords that
   * cannot be kept are refused by name. At most one of jsonSchema, regex, grammar, choice and structuralTag.
   */
  jsonSchema?: boolean | Readonly<Record<string, unknown>>
  /** The whole output matches this regular expression. Without lookaround and backreferences. */
  regex?: string
  /** The output matches this grammar. EBNF as in llama.cpp and XGrammar; it begins with the rule root. */
  grammar?: string
  /** The output is one of these texts: an array of texts. */
  choice?: readonly string[]
  /**
   * Free text until a trigger, then one of the tags that begin with it, whose content is JSON under a schema, then
   * free text again: { triggers, tags: [{ begin, schema, end }], atLeastOne, stopAfterFirst, separator, otherwise
   * }.
   */
  structuralTag?: StructuralTag
  /**
   * Guess tokens ahead from what followed the last ngram tokens when they occurred before: ngram 1 to 16,
   * maxTokens 1 to 64. At most maxTokens tokens per step. The output is the same, in fewer steps where text
   * repeats itself.
   */
  speculate?: { ngram: number; maxTokens: number }
  /** Each unit moves the request 64 places ahead in the queue: an integer, 0 to 10. Default: 0. */
  priority?: number
  /** Longest time in ms from the call to the end; then it rejects with TIMEOUT: an integer, 1 to 2147483647. */
  timeoutMs?: number
  /**
   * Longest time in ms from the call to the start of the request; then it rejects with TIMEOUT: an integer, 1 to
   * 2147483647.
   */
  queueTimeoutMs?: number
  /** Ends the request; it resolves with finishReason 'abort'. */
  signal?: AbortSignal
}

/** Parameters of engine.generateMany: those of generate, and `n`. */
export interface GenerateManyParams extends GenerateParams {
  /**
   * Completions of each prompt: an integer, 1 to 64. Default: 1. For generateMany only. Each completion has its
   * own random numbers.
   */
  n?: number
}
