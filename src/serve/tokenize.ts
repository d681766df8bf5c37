// /tokenize, /detokenize and /tokenizer_info, as vLLM has them: lm-evaluation-harness and routers count tokens with them.
import type { FastifyInstance } from 'fastify'
import { chatPromptOf, modelOf } from './completions.js'
import { badRequest, httpError } from './http-error.js'
import { echoText } from './prompt-scores.js'
import { CHAT_SCHEMA, type ChatBody, TOKEN_IDS } from './request-schema.js'
import type { ServedModel } from './served-model.js'

const model = { type: 'string', minLength: 1, maxLength: 500 }
const boolean = { type: 'boolean' }
const { messages, add_generation_prompt, continue_final_message, chat_template_kwargs } = CHAT_SCHEMA.properties

const TOKENIZE_SCHEMA = {
  type: 'object',
  properties: {
    model,
    prompt: { type: 'string' },
    messages,
    add_generation_prompt,
    continue_final_message,
    chat_template_kwargs,
    add_special_tokens: boolean,
    return_token_strs: boolean,
  },
  additionalProperties: false,
}

const DETOKENIZE_SCHEMA = {
  type: 'object',
  properties: { model, tokens: { ...TOKEN_IDS, minItems: 0 } },
  required: ['tokens'],
  additionalProperties: false,
}

interface TokenizeBody extends Partial<ChatBody> {
  readonly model?: string
  readonly prompt?: string
  /** The id that begins a document, if the tokenizer adds one. Default: true for a prompt, false for messages. */
  readonly add_special_tokens?: boolean
  readonly return_token_strs?: boolean
}

export function addTokenize(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>): void {
  app.post<{ Body: TokenizeBody }>('/tokenize', { schema: { body: TOKENIZE_SCHEMA } }, async ({ body }) => {
    const served = onlyModel(models, body.model)
    const { engine } = served
    const isChat = body.messages !== undefined
    if (isChat === (body.prompt !== undefined)) throw badRequest('Send either prompt or messages.', 'prompt', 'invalid_value')
    const text = isChat ? await chatPromptOf(served, body as ChatBody) : (body.prompt ?? '')
    const bos = (body.add_special_tokens ?? !isChat) && engine.info.addsBos
    const tokens = await engine.tokenize(text, { bos }).catch((error: unknown) => {
      throw inTerms(error, isChat ? 'messages' : 'prompt')
    })
    return {
      count: tokens.length,
      max_model_len: engine.info.contextTokens,
      tokens,
      token_strs: body.return_token_strs === true ? tokens.map((id) => echoText([id], engine, true)) : null,
    }
  })

  app.post<{ Body: { model?: string; tokens: readonly number[] } }>('/detokenize', { schema: { body: DETOKENIZE_SCHEMA } }, async ({ body }) => {
    const { engine } = onlyModel(models, body.model)
    const { hasTokenizer, vocab, contextTokens } = engine.info
    if (!hasTokenizer) throw badRequest('This model has no tokenizer.', 'tokens', 'tokenizer_missing')
    const bad = body.tokens.find((id) => id >= vocab)
    if (bad !== undefined) throw badRequest(`tokens has ${bad}, and the vocabulary ends at ${vocab - 1}.`, 'tokens', 'token_invalid')
    if (body.tokens.length > contextTokens)
      throw badRequest(`tokens has ${body.tokens.length} ids, and the context ${contextTokens}.`, 'tokens', 'context_length_exceeded')
    // As in vLLM, special tokens are written out: tokenizing the text gives the same ids.
    return { prompt: echoText(body.tokens, engine, true) }
  })

  app.get<{ Querystring: { model?: string } }>('/tokenizer_info', async ({ query }) => {
    const { engine, template } = onlyModel(models, query.model)
    const { hasTokenizer, endIds, bosId, contextTokens } = engine.info
    if (!hasTokenizer) throw badRequest('This model has no tokenizer.', 'model', 'tokenizer_missing')
    const written = (id: number | undefined) => (id === undefined ? null : (engine.tokenPiece(id).special ?? null))
    return {
      tokenizer_class: 'tetrad',
      bos_token: written(bosId),
      eos_token: written(endIds[0]),
      model_max_length: contextTokens,
      chat_template: template.source?.source ?? null,
    }
  })
}

/** Clients that know one server and one model send no name. */
function onlyModel(models: ReadonlyMap<string, ServedModel>, id: string | undefined): ServedModel {
  if (id !== undefined) return modelOf(models, id)
  const [only, ...others] = models.values()
  if (only && others.length === 0) return only
  throw badRequest('model is missing: more than one is served here, or none.', 'model', 'missing_required_parameter')
}

function inTerms(error: unknown, param: string): unknown {
  const known = httpError(error)
  return known.param === 'prompt' ? badRequest(known.message, param, known.code ?? undefined) : known
}
