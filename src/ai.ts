// tetrad/ai: an engine of this process as a language model of Vercel's AI SDK (npm ai). Imports types of it only.
import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3FinishReason,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
  SharedV3Warning,
} from '@ai-sdk/provider'
import { type AnswerReader, answerOf } from './ai-calls.js'
import type { ChatParams, Engine } from './engine/engine.js'
import type { Completion } from './engine/generation.js'

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
 * Objects (generateObject, Output.object) are held to their JSON schema as they are generated. Tools are called in the form of the model's
 * chat template, with arguments that are valid under their schemas (docs/structured-output.md). Further parameters of Engine.chat are taken
 * from `providerOptions.tetrad`. Tools of providers, and parts of messages that are neither text nor calls and their results, reject with
 * OptionError OPTION_INVALID, which names them; everything else rejects as Engine.chat does. The engine stays the caller's to close.
 */
export function languageModel(engine: Engine, { modelId = 'tetrad' }: LanguageModelSettings = {}): LanguageModelV3 {
  return {
    specificationVersion: 'v3',
    provider: 'tetrad',
    modelId,
    supportedUrls: {},
    doGenerate: async (options) => {
      const { generation, reader } = await answerOf(engine, options, paramsOf(engine, options))
      const completion = endedWell(await generation, options.abortSignal)
      return {
        content: reader.whole(completion.text),
        finishReason: finishReason(completion, reader),
        usage: usage(completion),
        warnings: warningsOf(options),
        response: { modelId, timestamp: new Date() },
      }
    },
    doStream: async (options) => ({
      stream: ReadableStream.from(streamParts(engine, modelId, options)) as ReadableStream<LanguageModelV3StreamPart>,
    }),
  }
}

async function* streamParts(
  engine: Engine,
  modelId: string,
  options: LanguageModelV3CallOptions,
): AsyncGenerator<LanguageModelV3StreamPart, void, undefined> {
  yield { type: 'stream-start', warnings: warningsOf(options) }
  try {
    const { generation, reader } = await answerOf(engine, options, paramsOf(engine, options))
    yield { type: 'response-metadata', modelId, timestamp: new Date() }
    for await (const { text } of generation) yield* reader.push(text)
    const completion = endedWell(await generation, options.abortSignal)
    yield* reader.end()
    yield { type: 'finish', finishReason: finishReason(completion, reader), usage: usage(completion) }
  } catch (error) {
    yield { type: 'error', error }
  }
}

/** The AI SDK expects an aborted call to throw its signal's reason. */
function endedWell(completion: Completion, signal: AbortSignal | undefined): Completion {
  if (completion.finishReason === 'abort') signal?.throwIfAborted()
  return completion
}

function paramsOf(engine: Engine, options: LanguageModelV3CallOptions): ChatParams {
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
  }
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null))
  return { ...(options.providerOptions?.tetrad as ChatParams | undefined), ...set }
}

/** Settings without an effect here. Headers belong to HTTP, which there is none of. */
function warningsOf({ headers }: LanguageModelV3CallOptions): SharedV3Warning[] {
  const sent = Object.keys(headers ?? {}).filter((name) => name.toLowerCase() !== 'user-agent')
  return sent.length > 0 ? [{ type: 'unsupported', feature: 'headers', details: 'The engine runs in this process.' }] : []
}

function finishReason({ finishReason: raw }: Completion, { called }: AnswerReader): LanguageModelV3FinishReason {
  return { unified: raw === 'abort' ? 'other' : raw === 'stop' && called ? 'tool-calls' : raw, raw }
}

function usage({ usage: { promptTokens, completionTokens, cachedTokens } }: Completion): LanguageModelV3Usage {
  return {
    inputTokens: { total: promptTokens, noCache: promptTokens - cachedTokens, cacheRead: cachedTokens, cacheWrite: undefined },
    outputTokens: { total: completionTokens, text: completionTokens, reasoning: undefined },
  }
}
