// Text to token ids and back. Which library does it is decided in loadTokenizer; nobody else knows.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../errors.js'
import { parseJson } from '../json.js'
import { readModelFile } from '../model/model-files.js'
import { show } from '../options/check.js'
import { GPT2_IDS, gpt2Tokenizer } from './gpt2.js'
import { makeTokenizer } from './make-tokenizer.js'
import { readSpecials, type TokenizerFile } from './tokenizer-file.js'
import type { Tokenizer } from './tokenizer-interface.js'

export type { Tokenizer } from './tokenizer-interface.js'

/**
 * The tokenizer of `dir`/tokenizer.json. Without one: GPT-2's, if `fallback` says so and vocab is 50257 or more; else undefined.
 * @param vocab number of ids of the model; every id of the file must be below it
 * @throws CheckpointError TOKENIZER_INVALID: the file is damaged, does not fit the model, or needs a feature that the only library
 * that loads here would get wrong
 */
export async function loadTokenizer(dir: string, vocab: number, fallback: 'gpt2' | 'none' = 'gpt2'): Promise<Tokenizer | undefined> {
  const path = join(dir, 'tokenizer.json')
  const text = await readIfThere(dir, 'tokenizer.json')
  if (text === undefined) await refuseOtherKind(dir)
  if (text === undefined) return fallback === 'gpt2' && vocab >= GPT2_IDS ? gpt2Tokenizer() : undefined
  try {
    const json = text.replace(/^\ufeff/, '')
    const file = JSON.parse(json) as TokenizerFile
    checkIds(file, vocab)
    return await makeTokenizer(json, file, readSpecials(file, await readSettings(dir)))
  } catch (error) {
    throw error instanceof CheckpointError ? error : invalid(path, error)
  }
}

/** A model with another kind of tokenizer must not get GPT-2's. */
async function refuseOtherKind(dir: string): Promise<void> {
  if ((await stat(join(dir, 'tokenizer.model')).catch(() => undefined)) === undefined) return
  throw new CheckpointError('TOKENIZER_INVALID', {
    what: `${dir} has tokenizer.model, a file of SentencePiece, and no tokenizer.json`,
    expected: 'tokenizer.json',
    remedy: `Write it with transformers: python -c "from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('${dir}').save_pretrained('${dir}')"`,
  })
}

async function readIfThere(dir: string, name: string): Promise<string | undefined> {
  try {
    return await readModelFile(dir, name)
  } catch (error) {
    throw error instanceof CheckpointError ? error : invalid(join(dir, name), error)
  }
}

/** tokenizer_config.json; without one, or with one that is no object, nothing is set. */
async function readSettings(dir: string): Promise<Record<string, unknown>> {
  const path = join(dir, 'tokenizer_config.json')
  const text = await readIfThere(dir, 'tokenizer_config.json')
  if (text === undefined) return {}
  try {
    const parsed: unknown = parseJson(text)
    return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : {}
  } catch (error) {
    throw invalid(path, error)
  }
}

/** Before a library sees them: one fills tables up to the largest id (an id of 2^31 kept it busy for 100 s). */
function checkIds(file: TokenizerFile, vocab: number): void {
  const { added_tokens: added, model } = file ?? {}
  const fromAdded = Array.isArray(added) ? added.map((token) => token?.id) : []
  const table: unknown = model?.vocab
  const fromModel = typeof table === 'object' && table !== null && !Array.isArray(table) ? Object.values(table) : []
  for (const id of [...fromAdded, ...fromModel]) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocab)
      throw new Error(`it has the id ${show(id)}, and the model has ${vocab} ids`)
  }
  if (Array.isArray(table) && table.length > vocab) throw new Error(`it has ${table.length} ids, and the model has ${vocab}`)
}

function invalid(path: string, cause: unknown): CheckpointError {
  return new CheckpointError('TOKENIZER_INVALID', {
    what: `${path} cannot be used`,
    expected: 'a tokenizer.json of the Hugging Face format that fits the model',
    actual: cause instanceof Error ? cause.message : String(cause),
    remedy: 'Fetch the file again, or remove it and give prompts as token ids.',
    cause,
  })
}
