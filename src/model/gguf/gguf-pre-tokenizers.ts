// How a text is cut before byte pairs are merged, by the names that llama.cpp gives (tokenizer.ggml.pre), as the tokenizer.json of the
// models has it.

interface PreTokenizer {
  readonly normalizer: unknown
  readonly preTokenizer: unknown
  /** A word that is a token as a whole is that token, whatever the merges say. */
  readonly wholeWords: boolean
  readonly addsBos: boolean
}

const byteLevel = (useRegex: boolean) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: useRegex })

function splitBy(regex: string, more: Partial<PreTokenizer> = {}): PreTokenizer {
  const split = { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false }
  return {
    normalizer: null,
    preTokenizer: { type: 'Sequence', pretokenizers: [split, byteLevel(false)] },
    wholeWords: false,
    addsBos: false,
    ...more,
  }
}

const REST = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
const WORDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
const CASED =
  '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*'

const LLAMA_3 = splitBy(`${WORDS}|\\p{N}{1,3}|${REST}`, { wholeWords: true, addsBos: true })

export const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  'gpt-2': { normalizer: null, preTokenizer: byteLevel(true), wholeWords: false, addsBos: false },
  smollm: {
    normalizer: null,
    preTokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel(true)] },
    wholeWords: false,
    addsBos: false,
  },
  'llama-bpe': LLAMA_3,
  llama3: LLAMA_3,
  'llama-v3': LLAMA_3,
  qwen2: splitBy(`${WORDS}|\\p{N}|${REST}`, { normalizer: { type: 'NFC' } }),
  tekken: splitBy(`${CASED}|\\p{N}|${REST.replace('[\\r\\n]*', '[\\r\\n/]*')}`, { wholeWords: true, addsBos: true }),
}
