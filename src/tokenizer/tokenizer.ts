// Text <-> token ids through tokenizer.json (@huggingface/tokenizers). A model without one has no tokenizer.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { CheckpointError } from '../errors.js'

export interface Tokenizer {
  encode(text: string): number[]
  /** Special tokens are left out. */
  decode(ids: readonly number[]): string
  /** Id of `<|endoftext|>`, if the vocabulary has it. */
  readonly endOfText: number | undefined
}

/** The tokenizer of `dir`/tokenizer.json, or undefined if there is none. Throws CheckpointError TOKENIZER_INVALID. */
export async function loadTokenizer(dir: string, vocab: number): Promise<Tokenizer | undefined> {
  const path = join(dir, 'tokenizer.json')
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw invalid(path, error)
  }
  try {
    const tokenizer = new HuggingFaceTokenizer(JSON.parse(text), { clean_up_tokenization_spaces: false })
    const largest = tokenizer.get_vocab(true)
    for (const id of largest.values()) {
      if (id >= vocab) throw new Error(`it has the id ${id}, and the model ${vocab} ids`)
    }
    return {
      encode: (prompt) => tokenizer.encode(prompt, { add_special_tokens: false }).ids,
      // The library refuses to decode nothing.
      decode: (ids) => (ids.length === 0 ? '' : tokenizer.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false })),
      endOfText: tokenizer.token_to_id('<|endoftext|>'),
    }
  } catch (error) {
    throw invalid(path, error)
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
