// A small tokenizer of SentencePiece's kind, as transformers writes it.
import type { TokenizerFile } from '../../src/tokenizer/tokenizer-file.js'

const BYTES = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)

/** A tokenizer of SentencePiece's kind: a space before the text, byte fallback, <s> before it, <|end|> a control token. */
export const SENTENCE_PIECE: TokenizerFile = {
  added_tokens: ['<unk>', '<s>', '<|end|>'].map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '\u2581' },
      { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' },
    ],
  },
  pre_tokenizer: null,
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
  },
  decoder: {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '\u2581' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  },
  model: {
    type: 'BPE',
    dropout: null,
    unk_token: '<unk>',
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: true,
    byte_fallback: true,
    vocab: Object.fromEntries(
      ['<unk>', '<s>', '<|end|>', ...BYTES, '\u2581', 't', 'h', 'e', '\u2581t', 'he', '\u2581the', '<', '|', 'n', 'd', '>'].map((piece, id) => [
        piece,
        id,
      ]),
    ),
    merges: ['\u2581 t', 'h e', '\u2581t he'],
  },
}
