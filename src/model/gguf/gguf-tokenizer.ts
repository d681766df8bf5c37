// The tokenizer.json that the vocabulary of a GGUF file stands for: byte pair encoding with merges (gpt2), or of SentencePiece with
// scores (llama). What cannot be written down exactly is refused by name. Keys and kinds: llama.cpp, src/llama-vocab.cpp.
import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'
import type { GgufMetadata } from './gguf-metadata.js'
import { PRE_TOKENIZERS } from './gguf-pre-tokenizers.js'
import { mergesByScore } from './spm-merges.js'

/** tokenizer.ggml.token_type. */
const KIND = { unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const
const SPACE = '\u2581'
const KEY = 'tokenizer.ggml.'

interface Vocabulary {
  /** By id. */
  readonly tokens: readonly string[]
  readonly kinds: readonly number[]
}

export interface GgufTokenizer {
  /** As tokenizer.json. */
  readonly file: Record<string, unknown>
  /** As tokenizer_config.json. */
  readonly config: Record<string, unknown>
}

/** Undefined: the file has no vocabulary. Throws CheckpointError TOKENIZER_INVALID or CONFIG_INVALID. */
export function ggufTokenizer(metadata: GgufMetadata): GgufTokenizer | undefined {
  const model = metadata.string(`${KEY}model`)
  if (model === undefined || model === 'no_vocab' || model === 'none') return undefined
  if (model !== 'gpt2' && model !== 'llama') throw refuse(metadata, `${KEY}model is ${show(model)}`, 'gpt2 or llama')
  const vocabulary = readVocabulary(metadata)
  const { parts, addsBos } = model === 'gpt2' ? bytePairs(metadata, vocabulary) : sentencePieces(metadata, vocabulary)
  const bos = tokenOf(metadata, 'bos')
  const adds = (metadata.boolean(`${KEY}add_bos_token`) ?? addsBos) && bos !== undefined
  return {
    file: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary),
      ...parts,
      post_processor: adds ? leading(bos) : null,
    },
    config: { ...ggufTokenizerConfig(metadata), add_bos_token: adds },
  }
}

/** What tokenizer_config.json says beside the vocabulary, as far as the file states it. */
export function ggufTokenizerConfig(metadata: GgufMetadata): Record<string, unknown> {
  const [bos, eos] = [tokenOf(metadata, 'bos'), tokenOf(metadata, 'eos')]
  const adds = metadata.boolean(`${KEY}add_bos_token`)
  const template = metadata.string('tokenizer.chat_template')
  return {
    ...(bos && { bos_token: bos.text }),
    ...(eos && { eos_token: eos.text }),
    ...(adds !== undefined && { add_bos_token: adds }),
    ...(template !== undefined && { chat_template: template }),
  }
}

function tokenOf(metadata: GgufMetadata, name: string): { id: number; text: string } | undefined {
  const tokens = metadata.strings(`${KEY}tokens`) ?? []
  const id = metadata.optionalInteger(`${KEY}${name}_token_id`, 0, Math.max(0, tokens.length - 1))
  const text = tokens[id ?? -1]
  return id === undefined || text === undefined ? undefined : { id, text }
}

/** Ids that end a text: of the text, of a turn, of a message. */
export function ggufEndIds(metadata: GgufMetadata): number[] {
  const count = metadata.strings(`${KEY}tokens`)?.length ?? 0
  const ids = ['eos', 'eot', 'eom'].flatMap((name) => metadata.optionalInteger(`${KEY}${name}_token_id`, 0, Math.max(0, count - 1)) ?? [])
  return [...new Set(ids)]
}

function readVocabulary(metadata: GgufMetadata): Vocabulary {
  const tokens = metadata.strings(`${KEY}tokens`)
  if (!tokens || tokens.length === 0) throw metadata.wrong(`${KEY}tokens`, 'the vocabulary', tokens)
  const kinds = metadata.numbers(`${KEY}token_type`) ?? tokens.map(() => 1)
  if (kinds.length !== tokens.length) throw metadata.wrong(`${KEY}token_type`, `${tokens.length} kinds`, `${kinds.length}`)
  return { tokens, kinds }
}

/** Ids by token, without those that stand for none. */
function idsOf(metadata: GgufMetadata, { tokens, kinds }: Vocabulary): Map<string, number> {
  const ids = new Map<string, number>()
  for (const [id, token] of tokens.entries()) {
    if (kinds[id] === KIND.unused) continue
    if (ids.has(token)) throw refuse(metadata, `the tokens ${ids.get(token)} and ${id} are both ${show(token)}`, 'each token once')
    ids.set(token, id)
  }
  return ids
}

function addedTokens({ tokens, kinds }: Vocabulary): Record<string, unknown>[] {
  return tokens.flatMap((content, id) => {
    const kind = kinds[id]
    if (kind !== KIND.control && kind !== KIND.userDefined && kind !== KIND.unknown) return []
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: kind !== KIND.userDefined }]
  })
}

interface Parts {
  readonly parts: Record<string, unknown>
  /** Whether a text begins with BOS where the file does not say. */
  readonly addsBos: boolean
}

function bytePairs(metadata: GgufMetadata, vocabulary: Vocabulary): Parts {
  const name = metadata.string(`${KEY}pre`)
  const pre = name !== undefined && Object.hasOwn(PRE_TOKENIZERS, name) ? PRE_TOKENIZERS[name] : undefined
  if (!pre) throw refuse(metadata, `${KEY}pre is ${show(name)}`, Object.keys(PRE_TOKENIZERS).join(', '))
  const merges = metadata.strings(`${KEY}merges`)
  if (!merges) throw metadata.wrong(`${KEY}merges`, 'the merges', undefined)
  // Added tokens too: the library numbers those that the vocabulary lacks anew.
  const vocab = Object.fromEntries(idsOf(metadata, vocabulary))
  const parts = {
    normalizer: pre.normalizer,
    pre_tokenizer: pre.preTokenizer,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.wholeWords,
      vocab,
      merges: withoutDeadEnds(
        merges.map((merge) => pairOf(metadata, merge)),
        vocab,
      ),
    },
  }
  return { parts, addsBos: pre.addsBos }
}

/** Two pieces with a space between; the first may begin with one. */
function pairOf(metadata: GgufMetadata, merge: string): [string, string] {
  const at = merge.indexOf(' ', 1)
  if (at < 0 || at === merge.length - 1) throw metadata.wrong(`${KEY}merges`, 'pairs of pieces with a space between', merge)
  return [merge.slice(0, at), merge.slice(at + 1)]
}

/** llama.cpp takes a piece that is no token apart again; the library refuses it. Without such merges the tokens are the same, unless another builds on them. */
function withoutDeadEnds(merges: readonly [string, string][], vocab: Readonly<Record<string, number>>): [string, string][] {
  const parts = new Set(merges.flat())
  return merges.filter(([left, right]) => Object.hasOwn(vocab, left + right) || parts.has(left + right))
}

function sentencePieces(metadata: GgufMetadata, vocabulary: Vocabulary): Parts {
  const scores = metadata.numbers(`${KEY}scores`)
  if (scores?.length !== vocabulary.tokens.length) throw metadata.wrong(`${KEY}scores`, `${vocabulary.tokens.length} scores`, scores?.length)
  if (metadata.boolean(`${KEY}remove_extra_whitespaces`)) throw refuse(metadata, `${KEY}remove_extra_whitespaces is true`, 'false')
  if (metadata.get(`${KEY}precompiled_charsmap`) !== undefined) throw refuse(metadata, `it has ${KEY}precompiled_charsmap`, 'no such key')
  const spaced = vocabulary.tokens.findIndex(
    (token, id) => vocabulary.kinds[id] === KIND.userDefined && (token.includes(SPACE) || token.includes(' ')),
  )
  if (spaced >= 0) throw refuse(metadata, `its user-defined token ${spaced} has a space`, 'user-defined tokens without spaces')
  const unknown = vocabulary.kinds.indexOf(KIND.unknown)
  if (unknown < 0) throw refuse(metadata, 'no token stands for what is unknown', 'a token of the kind unknown')
  const prefix = metadata.boolean(`${KEY}add_space_prefix`) ?? true
  const ids = idsOf(metadata, vocabulary)
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: SPACE }
  const hasBytes = vocabulary.kinds.includes(KIND.byte)
  const parts = {
    normalizer: { type: 'Sequence', normalizers: [...(prefix ? [{ type: 'Prepend', prepend: SPACE }] : []), replace] },
    pre_tokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: vocabulary.tokens[unknown],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: hasBytes,
      ignore_merges: false,
      vocab: Object.fromEntries(ids),
      merges: mergesByScore(ids, scores, (piece) => refuse(metadata, `its token ${show(piece)} is long`, 'tokens of 256 characters or fewer')),
    },
  }
  return { parts, addsBos: true }
}

function leading({ id, text }: { id: number; text: string }): Record<string, unknown> {
  const special = { SpecialToken: { id: text, type_id: 0 } }
  const sequence = (name: string) => ({ Sequence: { id: name, type_id: 0 } })
  return {
    type: 'TemplateProcessing',
    single: [special, sequence('A')],
    pair: [special, sequence('A'), special, sequence('B')],
    special_tokens: { [text]: { id: text, ids: [id], tokens: [text] } },
  }
}

function refuse(metadata: GgufMetadata, what: string, expected: string): CheckpointError {
  return new CheckpointError('TOKENIZER_INVALID', {
    what: `${metadata.path}: ${what}, and its tokenizer cannot be rebuilt exactly`,
    expected,
    remedy: "Put the model's original tokenizer.json and tokenizer_config.json beside the file into a folder, and give the folder.",
  })
}
