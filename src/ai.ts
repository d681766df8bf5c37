// tetrad/ai: an engine of this process as a language model of Vercel's AI SDK (npm ai). Imports types of it only.
import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3FinishReason,
  LanguageModelV3Message,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
  SharedV3Warning,
} from '@ai-sdk/provider'
import type { ChatParams, Engine } from './engine/engine.js'
import type { Completion } from './engine/generation.js'
import { invalidOption, show } from './options/check.js'
import type { ChatMessage } from './tokenizer/chat-template.js'

/** Settings of languageModel. */
export interface LanguageModelSettings {
  /** How the model is called in results and telemetry. Default: 'tetrad'. */
  readonly modelId?: string
}

/**
 * The engine as a model of the AI SDK (specification v3: ai 6), without a server in between:
 *
 * ```js
 * import { generateText } from 'ai'
 * import { Engine } from 'tetrad'
 * import { languageModel } from 'tetrad/ai'
 *
 * const engine = await Engine.load()
 * const { text } = await generateText({ model: languageModel(engine), prompt: 'Once upon a time', maxOutputTokens: 32 })
 * ```
 *
 * A conversation becomes a prompt as in Engine.chat. Temperature is 0 (greedy) unless it is set, and maxOutputTokens the rest of the context.
 * Objects (generateObject, Output.object) are held to their JSON schema as they are generated. Further parameters of Engine.chat are taken
 * from `providerOptions.tetrad`. Tools, and messages that are not text, reject with OptionError OPTION_INVALID, which names them; everything
 * else rejects as Engine.chat does. The engine stays the caller's to close.
 */
export function languageModel(engine: Engine, { modelId = 'tetrad' }: LanguageModelSettings = {}): LanguageModelV3 {
  return {
    specificationVersion: 'v3',
    provider: 'tetrad',
    modelId,
    supportedUrls: {},
    doGenerate: async (options) => {
      const { messages, params } = callOf(engine, options)
      const completion = endedWell(await engine.chat(messages, params), options.abortSignal)
      return {
        content: [{ type: 'text', text: completion.text }],
        finishReason: finishReason(completion),
        usage: usage(completion),
        warnings: warningsOf(options),
        response: { modelId, timestamp: new Date() },
      }
    },
    doStream: async (options) => {
      const { messages, params } = callOf(engine, options)
      const parts = streamParts(engine, messages, params, { modelId, options })
      return { stream: ReadableStream.from(parts) as ReadableStream<LanguageModelV3StreamPart> }
    },
  }
}

const TEXT_ID = '0'

async function* streamParts(
  engine: Engine,
  messages: readonly ChatMessage[],
  params: ChatParams,
  { modelId, options }: { readonly modelId: string; readonly options: LanguageModelV3CallOptions },
): AsyncGenerator<LanguageModelV3StreamPart, void, undefined> {
  yield { type: 'stream-start', warnings: warningsOf(options) }
  try {
    const generation = engine.chat(messages, params)
    yield { type: 'response-metadata', modelId, timestamp: new Date() }
    yield { type: 'text-start', id: TEXT_ID }
    for await (const { text } of generation) if (text !== '') yield { type: 'text-delta', id: TEXT_ID, delta: text }
    const completion = endedWell(await generation, options.abortSignal)
    yield { type: 'text-end', id: TEXT_ID }
    yield { type: 'finish', finishReason: finishReason(completion), usage: usage(completion) }
  } catch (error) {
    yield { type: 'error', error }
  }
}

/** The AI SDK expects an aborted call to throw its signal's reason. */
function endedWell(completion: Completion, signal: AbortSignal | undefined): Completion {
  if (completion.finishReason === 'abort') signal?.throwIfAborted()
  return completion
}

function callOf(engine: Engine, options: LanguageModelV3CallOptions): { messages: readonly ChatMessage[]; params: ChatParams } {
  const { tools = [], responseFormat, toolChoice } = options
  if (tools.length > 0 && toolChoice?.type !== 'none') throw unsupported('tools', 'no tools', `${tools.length} of them`)
  const given = {
    maxTokens: options.maxOutputTokens ?? engine.info.contextTokens,
    temperature: options.temperature,
    topP: options.topP,
    topK: options.topK,
    presencePenalty: options.presencePenalty,
    frequencyPenalty: options.frequencyPenalty,
    seed: options.seed,
    stop: options.stopSequences,
    signal: options.abortSignal,
    // Without a schema: any JSON.
    jsonSchema: responseFormat?.type === 'json' ? (responseFormat.schema ?? true) : undefined,
  }
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null))
  return { messages: options.prompt.map(messageOf), params: { ...(options.providerOptions?.tetrad as ChatParams | undefined), ...set } }
}

function messageOf(message: LanguageModelV3Message, i: number): ChatMessage {
  const { role, content } = message
  if (role === 'tool') throw unsupported(`prompt[${i}]`, 'messages of system, user and assistant', 'a message of a tool')
  if (typeof content === 'string') return { role, content }
  const texts = content.map((part, j) => {
    if (part.type === 'text') return part.text
    throw unsupported(`prompt[${i}].content[${j}]`, 'a part of type text', show(part.type))
  })
  return { role, content: texts.join('') }
}

/** Settings without an effect here. Headers belong to HTTP, which there is none of. */
function warningsOf({ headers, tools = [] }: LanguageModelV3CallOptions): SharedV3Warning[] {
  const sent = Object.keys(headers ?? {}).filter((name) => name.toLowerCase() !== 'user-agent')
  return [
    ...(sent.length > 0 ? [{ type: 'unsupported', feature: 'headers', details: 'The engine runs in this process.' } as const] : []),
    ...(tools.length > 0 ? [{ type: 'unsupported', feature: 'tools', details: "They are left out: toolChoice is 'none'." } as const] : []),
  ]
}

function finishReason({ finishReason: raw }: Completion): LanguageModelV3FinishReason {
  return { unified: raw === 'abort' ? 'other' : raw, raw }
}

function usage({ usage: { promptTokens, completionTokens, cachedTokens } }: Completion): LanguageModelV3Usage {
  return {
    inputTokens: { total: promptTokens, noCache: promptTokens - cachedTokens, cacheRead: cachedTokens, cacheWrite: undefined },
    outputTokens: { total: completionTokens, text: completionTokens, reasoning: undefined },
  }
}

function unsupported(option: string, expected: string, actual: string): Error {
  return invalidOption({ what: `${option} is not supported by this model`, expected, actual, remedy: 'Leave it out of the call.', option })
}
