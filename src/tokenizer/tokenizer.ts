// Text <-> token ids through tokenizer.json (@huggingface/tokenizers), or the GPT-2 BPE for a model without one whose
// vocabulary has room for it. Another model without one has no tokenizer.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { CheckpointError } from '../errors.js'
import { parseJson } from '../json.js'
import { show } from '../options/check.js'
import { GPT2_IDS, gpt2Tokenizer } from './gpt2.js'

export interface Tokenizer {
  encode(text: string): number[]
  /** Special tokens are left out. */
  decode(ids: readonly number[]): string
  /** Id of `<|endoftext|>`, if the vocabulary has it. */
  readonly endOfText: number | undefined
  /** Id of a token by its text; undefined: the vocabulary does not have it. */
  idOf(token: string): number | undefined
}

/** The tokenizer of `dir`/tokenizer.json, else GPT-2's if vocab is 50257 or more, else undefined. Throws CheckpointError TOKENIZER_INVALID. */
export async function loadTokenizer(dir: string, vocab: number): Promise<Tokenizer | undefined> {
  const path = join(dir, 'tokenizer.json')
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return vocab >= GPT2_IDS ? gpt2Tokenizer() : undefined
    throw invalid(path, error)
  }
  try {
    const parsed: unknown = parseJson(text)
    checkIds(parsed, vocab)
    const tokenizer = new HuggingFaceTokenizer(parsed as object, { clean_up_tokenization_spaces: false })
    return {
      encode: (prompt) => tokenizer.encode(prompt, { add_special_tokens: false }).ids,
      // The library refuses to decode nothing.
      decode: (ids) => (ids.length === 0 ? '' : tokenizer.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false })),
      endOfText: tokenizer.token_to_id('<|endoftext|>'),
      idOf: (token) => tokenizer.token_to_id(token),
    }
  } catch (error) {
    throw invalid(path, error)
  }
}

/** Before the library sees them: it fills tables up to the largest id (an id of 2^31 kept it busy for 100 s). */
function checkIds(file: unknown, vocab: number): void {
  const { added_tokens: added, model } = (file ?? {}) as { added_tokens?: unknown; model?: { vocab?: unknown } | null }
  const fromAdded = Array.isArray(added) ? added.map((token: { id?: unknown } | null) => token?.id) : []
  const fromModel = typeof model?.vocab === 'object' && model.vocab !== null && !Array.isArray(model.vocab) ? Object.values(model.vocab) : []
  for (const id of [...fromAdded, ...fromModel]) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocab)
      throw new Error(`it has the id ${show(id)}, and the model ${vocab} ids`)
  }
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
