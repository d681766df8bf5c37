// The ids that end a text: all that config.json, generation_config.json, and tokenizer_config.json (or special_tokens_map.json) name.
import { MAX_MODEL_END_IDS } from '../../workers/mailbox/mailbox-layout.js'
import { CheckpointError } from '../errors.js'
import { checkInteger, type Fail, show } from '../options/check.js'
import { readModelJson } from './read-json.js'

/** What a tokenizer says of its vocabulary. */
export interface Vocabulary {
  readonly endOfText: number | undefined
  /** Id of a token by its text; undefined: there is no such token. */
  idOf(token: string): number | undefined
}

const failOf =
  (file: string): Fail =>
  (facts) =>
    new CheckpointError('CONFIG_INVALID', { ...facts, what: `${file}: ${facts.what}` })

/** eos_token_id of a configuration: an id, a list of ids, or nothing. Throws what `fail` makes. */
export function endIdsOf(value: unknown, vocab: number, fail: Fail): number[] | undefined {
  if (value === undefined || value === null) return undefined
  const ids = Array.isArray(value) ? value : [value]
  return ids.map((id) => checkInteger('eos_token_id', id, 0, vocab - 1, fail))
}

/**
 * Ids that end a text, by all files of the model that name one; without any, the tokenizer's `<|endoftext|>`.
 * Throws CheckpointError CONFIG_INVALID.
 */
export async function readEndIds(
  dir: string,
  config: { readonly eosTokenIds: readonly number[] | undefined; readonly vocab: number },
  vocabulary: Vocabulary | undefined,
): Promise<readonly number[]> {
  const generation = await readFields(dir, 'generation_config.json')
  const tokenizer = await readFields(dir, 'tokenizer_config.json')
  const special = await readFields(dir, 'special_tokens_map.json')
  const ids = new Set<number>(config.eosTokenIds ?? [])
  for (const id of endIdsOf(generation?.eos_token_id, config.vocab, failOf('generation_config.json')) ?? []) ids.add(id)
  const named = endToken('tokenizer_config.json', tokenizer) ?? endToken('special_tokens_map.json', special)
  if (named !== undefined && vocabulary) {
    const id = vocabulary.idOf(named)
    if (id === undefined || id >= config.vocab) {
      throw failOf('tokenizer_config.json')({
        what: 'eos_token is not in the vocabulary',
        expected: 'a token of the tokenizer',
        actual: show(named),
        remedy: 'Fetch tokenizer.json and tokenizer_config.json of the same model.',
      })
    }
    ids.add(id)
  }
  if (ids.size > MAX_MODEL_END_IDS) {
    throw failOf('config.json')({
      what: 'eos_token_id names too many ids, with those of generation_config.json and tokenizer_config.json',
      expected: `at most ${MAX_MODEL_END_IDS} different ids`,
      actual: String(ids.size),
      remedy: 'Keep the ids that end a text, and pass others as stopTokenIds of a request.',
    })
  }
  if (ids.size > 0) return [...ids]
  return vocabulary?.endOfText === undefined ? [] : [vocabulary.endOfText]
}

async function readFields(dir: string, file: string): Promise<Record<string, unknown> | undefined> {
  const value = await readModelJson(dir, file, failOf(file))
  if (value === undefined) return undefined
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw failOf(file)({ what: 'not an object', expected: 'a JSON object', actual: show(value), remedy: 'Fetch the file again, or remove it.' })
}

/** A text, or an AddedToken with its text as content. */
function endToken(file: string, fields: Record<string, unknown> | undefined): string | undefined {
  const token = fields?.eos_token
  const content = typeof token === 'object' && token !== null ? (token as { content?: unknown }).content : token
  if (content === undefined || content === null) return undefined
  if (typeof content === 'string') return content
  throw failOf(file)({
    what: 'eos_token is not a text',
    expected: 'a text, or an object with content',
    actual: show(token),
    remedy: 'Fetch the file again.',
  })
}
