// Adapters of served models: each is a model of its own name, whose parent is the model, and may be loaded and unloaded where the server allows
// it (vLLM's endpoints).
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { TetradError } from '../errors.js'
import { badRequest, HttpError, httpError } from './http-error.js'
import type { ServedEngine, ServedModel } from './served-model.js'

/** One object for each adapter of an engine: what is kept for a model is kept by its identity. */
const bound = new WeakMap<ServedEngine, Map<string, ServedModel>>()

/** The served model whose adapter has this name; undefined: none has. */
export function adapterModel(models: ReadonlyMap<string, ServedModel>, name: string): ServedModel | undefined {
  const model = [...models.values()].find(({ engine }) => engine.adapters?.some((adapter) => adapter.name === name))
  return model && withAdapter(model, name)
}

/** All adapters of served models, as models. */
export function adapterModels(models: ReadonlyMap<string, ServedModel>): ServedModel[] {
  return [...models.values()].flatMap((model) => (model.engine.adapters ?? []).map(({ name }) => withAdapter(model, name)))
}

function withAdapter(model: ServedModel, name: string): ServedModel {
  const known = bound.get(model.engine) ?? new Map<string, ServedModel>()
  bound.set(model.engine, known)
  const before = known.get(name)
  if (before?.parent === model.id) return before
  const { engine } = model
  const own: ServedEngine = {
    detokenize: (ids) => engine.detokenize(ids),
    tokenize: (text, options) => engine.tokenize(text, options),
    tokenPiece: (id) => engine.tokenPiece(id),
    generateMany: (prompts, params) => {
      if (params.lora !== undefined && params.lora !== name)
        throw badRequest(`The model ${JSON.stringify(name)} is an adapter itself. Send its parent as model, or omit lora.`, 'lora')
      return engine.generateMany(prompts, { ...params, lora: name })
    },
    stats: () => engine.stats(),
    close: async () => {},
    get info() {
      return engine.info
    },
    get failure() {
      return engine.failure
    },
    get available() {
      return engine.available ?? true
    },
  }
  const made: ServedModel = { ...model, id: name, engine: own, parent: model.id, created: Math.floor(Date.now() / 1000) }
  known.set(name, made)
  return made
}

interface LoadBody {
  readonly lora_name: string
  readonly lora_path: string
  /** Which of several models it is for. */
  readonly base_model_name?: string
}

const text = { type: 'string', minLength: 1, maxLength: 4096 }
const LOAD_SCHEMA = {
  type: 'object',
  properties: { lora_name: text, lora_path: text, base_model_name: text },
  required: ['lora_name', 'lora_path'],
  additionalProperties: false,
}
const UNLOAD_SCHEMA = { type: 'object', properties: { lora_name: text }, required: ['lora_name'], additionalProperties: false }

/** How long an answer waits for the last request with an adapter. */
const UNLOAD_WAIT_MS = 1000

/** allowed: otherwise both endpoints refuse. */
export function addAdapters(app: FastifyInstance, models: ReadonlyMap<string, ServedModel>, allowed: boolean): void {
  const check = () => {
    if (allowed) return
    const message = 'This server does not load or unload adapters. Start it with --allow-lora-updates.'
    throw new HttpError(403, 'invalid_request_error', message, { code: 'lora_updates_disabled' })
  }
  app.post<{ Body: LoadBody }>('/v1/load_lora_adapter', { schema: { body: LOAD_SCHEMA } }, async ({ body }, reply) => {
    check()
    const { lora_name: name, lora_path: path, base_model_name: parent } = body
    if (models.has(name)) throw badRequest(`A model is called ${JSON.stringify(name)}. Choose another name.`, 'lora_name', 'adapter_exists')
    if (adapterModel(models, name)) throw badRequest(`An adapter ${JSON.stringify(name)} is loaded already.`, 'lora_name', 'adapter_exists')
    const { engine } = baseOf(models, parent)
    if (!engine.loadAdapter) throw badRequest('Adapters of replicas are loaded when the server starts (--lora).', undefined, 'adapter_unsupported')
    await engine.loadAdapter(name, path).catch((error: unknown) => {
      throw loadError(error)
    })
    return reply.type('text/plain').send(`Success: LoRA adapter '${name}' added successfully.`)
  })
  app.post<{ Body: { lora_name: string } }>('/v1/unload_lora_adapter', { schema: { body: UNLOAD_SCHEMA } }, async ({ body }, reply) => {
    check()
    const name = body.lora_name
    const model = [...models.values()].find(({ engine }) => engine.adapters?.some((adapter) => adapter.name === name))
    if (!model)
      throw new HttpError(404, 'invalid_request_error', `No adapter ${JSON.stringify(name)} is loaded.`, {
        param: 'lora_name',
        code: 'adapter_not_found',
      })
    const { engine } = model
    if (!engine.unloadAdapter) throw badRequest('Adapters of replicas stay until the server ends.', undefined, 'adapter_unsupported')
    // New requests are refused from here on; those that run keep its place until they end.
    await Promise.race([engine.unloadAdapter(name), setTimeout(UNLOAD_WAIT_MS, undefined, { ref: false })])
    bound.get(engine)?.delete(name)
    return reply.type('text/plain').send(`Success: LoRA adapter '${name}' removed successfully.`)
  })
}

/** Throws HttpError. */
function baseOf(models: ReadonlyMap<string, ServedModel>, name: string | undefined): ServedModel {
  const [first, ...others] = models.values()
  const model = name === undefined ? (others.length === 0 ? first : undefined) : models.get(name)
  if (model) return model
  const what =
    name === undefined ? 'Several models are served: say which one the adapter is for' : `The model ${JSON.stringify(name)} is not served here`
  throw badRequest(`${what}. Served models: ${[...models.keys()].join(', ') || 'none'}.`, 'base_model_name', 'model_not_found')
}

/** A file that cannot be used is the client's fault. */
function loadError(error: unknown): unknown {
  if (!(error instanceof TetradError)) return error
  const known = httpError(error)
  if (known.status !== 503 || error.code === 'ENGINE_CLOSED' || error.code === 'MEMORY_EXHAUSTED') return known
  return new HttpError(400, 'invalid_request_error', known.message, { param: 'lora_path', code: error.code.toLowerCase(), cause: error })
}
