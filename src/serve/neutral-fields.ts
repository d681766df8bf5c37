// Fields that clients send although they ask for nothing: they are dropped before the body is checked. The same field with a value that would
// change the answer stays, and the schema refuses it by name. Knows JSON only.

type Body = Record<string, unknown>
type Test = (value: unknown) => boolean

const is =
  (...values: readonly unknown[]): Test =>
  (value) =>
    values.includes(value)
const isEmptyList: Test = (value) => Array.isArray(value) && value.length === 0
const isText: Test = (value) => typeof value === 'string'
const isBoolean: Test = (value) => typeof value === 'boolean'
const isLabels: Test = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Field -> whether its value asks for nothing. Sources: OpenAI's API reference, vLLM's protocol.py, llama.cpp's server README. */
const COMMON: Readonly<Record<string, Test>> = {
  // Labels for the provider's own records and caches.
  metadata: isLabels,
  prompt_cache_key: isText,
  prompt_cache_retention: isText,
  safety_identifier: isText,
  // Nothing is stored here: the answer is the same either way.
  store: isBoolean,
  service_tier: is('auto', 'default'),
  best_of: is(1),
  stop: is(''),
  // vLLM and Hugging Face: no limit.
  top_k: is(-1, 0),
  // vLLM and llama.cpp: no seed.
  seed: is(-1),
  // vLLM
  use_beam_search: is(false),
  length_penalty: is(1),
  early_stopping: is(false),
  spaces_between_special_tokens: is(true),
  include_stop_str_in_output: is(false),
  return_token_ids: is(false),
  return_tokens_as_token_ids: is(false),
  allowed_token_ids: isEmptyList,
  bad_words: isEmptyList,
  // llama.cpp: prompts are always cached here, and the answer is the same either way.
  cache_prompt: isBoolean,
  n_probs: is(0),
  // Mistral
  safe_prompt: is(false),
}

const COMPLETION: Readonly<Record<string, Test>> = {
  ...COMMON,
  suffix: is(''),
  add_special_tokens: is(true),
  logprobs: is(false),
}

const CHAT: Readonly<Record<string, Test>> = {
  ...COMMON,
  echo: is(false),
  add_special_tokens: is(false),
  tools: isEmptyList,
  functions: isEmptyList,
  function_call: is('none'),
  modalities: (value) => Array.isArray(value) && value.length === 1 && value[0] === 'text',
  verbosity: is('medium'),
  reasoning_effort: is('none'),
}

/** Of an earlier answer that a client sends back. */
const MESSAGE: Readonly<Record<string, Test>> = {
  annotations: isEmptyList,
  tool_calls: isEmptyList,
  refusal: is(''),
}

/** Of stream_options. */
const STREAM: Readonly<Record<string, Test>> = {
  continuous_usage_stats: is(false),
  include_obfuscation: is(false),
}

/** Mistral's name of a field, and the usual one. */
const ALIASES = [['random_seed', 'seed']] as const

/** Seeds of other servers may be negative or beyond 2^53; the engine's are integers from 0 to 2^53 - 1. */
const SEEDS = 2 ** 53

/** The body without fields that ask for nothing, null included, and with seeds in the engine's range. */
export function withoutNeutralFields(endpoint: 'completions' | 'chat', body: unknown): unknown {
  if (!isRecord(body)) return body
  const kept = without(body, endpoint === 'chat' ? CHAT : COMPLETION)
  for (const [alias, name] of ALIASES) {
    if (kept[alias] === undefined || kept[name] !== undefined) continue
    kept[name] = kept[alias]
    delete kept[alias]
  }
  if (Array.isArray(kept.stop)) {
    const stops = kept.stop.filter((stop) => stop !== '')
    if (stops.length > 0) kept.stop = stops
    else delete kept.stop
  }
  if (typeof kept.seed === 'number' && Number.isInteger(kept.seed)) kept.seed = seedInRange(kept.seed)
  if (isRecord(kept.stream_options)) {
    kept.stream_options = without(kept.stream_options, STREAM)
    // Without a stream the usage is always part of the answer.
    if (kept.stream !== true) delete kept.stream_options
  }
  // llama.cpp and LM Studio: no limit. In a chat that is the default.
  if (kept.max_tokens === -1) {
    if (endpoint === 'chat') delete kept.max_tokens
    else kept.max_tokens = Number.MAX_SAFE_INTEGER
  }
  if (endpoint === 'completions') return kept
  // Both say how tools are called, and there are none.
  if (kept.tools === undefined) {
    if (kept.tool_choice === 'auto' || kept.tool_choice === 'none') delete kept.tool_choice
    if (kept.function_call === 'auto') delete kept.function_call
    if (typeof kept.parallel_tool_calls === 'boolean') delete kept.parallel_tool_calls
  }
  if (kept.top_logprobs === 0 && kept.logprobs !== true) delete kept.top_logprobs
  if (Array.isArray(kept.messages)) kept.messages = kept.messages.map((message) => (isRecord(message) ? without(message, MESSAGE) : message))
  return kept
}

/** Exact for every double: a sum is only taken where both parts are below 2^53. */
function seedInRange(seed: number): number {
  const rest = seed % SEEDS
  return rest < 0 ? rest + SEEDS : rest
}

function without(value: Body, neutral: Readonly<Record<string, Test>>): Body {
  const kept = Object.entries(value).filter(([name, field]) => !(Object.hasOwn(neutral, name) && neutral[name]?.(field)))
  // Own properties only: a body may have a field called __proto__.
  return Object.fromEntries(kept)
}

function isRecord(value: unknown): value is Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
