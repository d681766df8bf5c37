// @huggingface/tokenizers, where the Rust library has no binary. It gives other ids than the reference for some features, without
// a word; a file that uses one is refused by its name.
import { CheckpointError } from '../errors.js'
import { markedEncoder } from './marked-encoder.js'
import { kindsOf, maxBytesPerToken, pieceBytes, type TokenizerFile, type TokenizerSettings } from './tokenizer-file.js'
import type { Tokenizer } from './tokenizer-interface.js'

/** Throws CheckpointError TOKENIZER_INVALID for a feature that the library does differently (0.2.0 beside tokenizers 0.23.2). */
export async function javascriptTokenizer(json: string, file: TokenizerFile, settings: TokenizerSettings): Promise<Tokenizer> {
  const feature = differentFeature(file)
  if (feature !== undefined) {
    throw new CheckpointError('TOKENIZER_INVALID', {
      what: `this tokenizer uses ${feature}, which the JavaScript tokenizer does differently from the reference`,
      expected: 'npm tokenizers, which has no binary for this system',
      actual: `${process.platform}-${process.arch}`,
      remedy: 'Give prompts as token ids, or run on a system that npm tokenizers has a binary for.',
    })
  }
  const { Tokenizer: Library } = await import('@huggingface/tokenizers')
  const options = { clean_up_tokenization_spaces: false }
  const tokenizer = new Library(JSON.parse(json) as object, options)
  const { controls } = settings
  const special = new Set(controls.values())
  const toBytes = pieceBytes(file.decoder)
  const bytesOf = (id: number) => {
    const piece = special.has(id) ? undefined : tokenizer.id_to_token(id)
    return piece === undefined ? new Uint8Array(0) : toBytes(piece)
  }
  const encodeWith = (which: typeof tokenizer, text: string) => which.encode(text, { add_special_tokens: false }).ids
  const marked = markedEncoder(file, (renamed) => {
    const other = new Library(renamed, options)
    return async (text) => encodeWith(other, text)
  })
  const decode = decoderOf(file)
  return {
    library: '@huggingface/tokenizers',
    encode: (text) => encodeWith(tokenizer, text),
    encodeAsync: async (text) => encodeWith(tokenizer, text),
    encodeMarked: async ({ text, mark }) => (text.includes(mark) ? marked(text, mark) : encodeWith(tokenizer, text)),
    decode: (ids) => decode(ids.flatMap((id) => (special.has(id) ? [] : (tokenizer.id_to_token(id) ?? [])))),
    bytesOf,
    controlId: (text) => controls.get(text),
    idOf: settings.idOf,
    controlTokens: [...controls.keys()],
    bosId: settings.bosId,
    addsBos: settings.addsBos,
    endOfText: settings.endOfText,
    maxBytesPerToken: maxBytesPerToken(file),
  }
}

const SAFE_NORMALIZERS = new Set(['NFC', 'NFD', 'NFKC', 'NFKD', 'Prepend', 'Replace'])
const SAFE_PRE_TOKENIZERS = new Set(['ByteLevel', 'Digits', 'Metaspace', 'WhitespaceSplit'])

/** Pieces to text, as the reference does it: the library's own decoders drop U+FEFF. Undefined: decoders that are not written here. */
function pieceDecoder(file: TokenizerFile): ((pieces: readonly string[]) => string) | undefined {
  const toBytes = pieceBytes(file.decoder)
  const text = (bytes: Uint8Array) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
  const kinds = kindsOf(file.decoder)
  const types = kinds.map(({ type }) => String(type)).join()
  if (types === 'ByteLevel') return (pieces) => text(Buffer.concat(pieces.map(toBytes)))
  if (types !== 'Replace,ByteFallback,Fuse,Strip' && types !== 'Replace,ByteFallback,Fuse') return undefined
  const [replace, , , strip] = kinds
  if ((replace?.pattern as { String?: unknown } | undefined)?.String !== '\u2581' || replace?.content !== ' ') return undefined
  if (strip && (strip.content !== ' ' || strip.stop !== 0)) return undefined
  const spaces = new RegExp(`^ {0,${Number(strip?.start ?? 0)}}`)
  return (pieces) => {
    let out = ''
    let open: number[] = []
    const close = () => {
      const run = Uint8Array.from(open)
      // A run of byte tokens that is no UTF-8 becomes one U+FFFD for each byte.
      out += Buffer.from(text(run)).equals(run) ? text(run) : '\ufffd'.repeat(open.length)
      open = []
    }
    for (const piece of pieces) {
      if (/^<0x[0-9A-F]{2}>$/.test(piece)) open.push(...toBytes(piece))
      else {
        close()
        out += text(toBytes(piece))
      }
    }
    close()
    return out.replace(spaces, '')
  }
}

function decoderOf(file: TokenizerFile): (pieces: readonly string[]) => string {
  return pieceDecoder(file) ?? ((pieces) => pieces.join(' '))
}

/** The first part of a file that the library is not known to do as the reference does. An allow-list: what is not listed was not compared. */
export function differentFeature(file: TokenizerFile): string | undefined {
  const { model } = file
  if (model?.type !== 'BPE') return `a ${String(model?.type)} model`
  if (model.continuing_subword_prefix) return 'continuing_subword_prefix'
  if (model.end_of_word_suffix) return 'end_of_word_suffix'
  if (typeof model.dropout === 'number' && model.dropout > 0) return 'dropout'
  if (file.normalizer && kindsOf(file.normalizer).some((part) => part.type === 'Replace' && !isPlainText(part.pattern)))
    return 'a Replace normalizer with a pattern'
  const unsafe = (part: TokenizerFile['normalizer'], safe: ReadonlySet<string>) => kindsOf(part).find(({ type }) => !safe.has(String(type)))?.type
  const normalizer = unsafe(file.normalizer, SAFE_NORMALIZERS)
  if (normalizer !== undefined) return `the normalizer ${String(normalizer)}`
  for (const part of kindsOf(file.pre_tokenizer)) {
    if (part.type === 'Split' && part.behavior === 'Isolated' && part.invert !== true) continue
    if (!SAFE_PRE_TOKENIZERS.has(String(part.type)))
      return `the pre-tokenizer ${String(part.type)}${part.behavior ? ` (${String(part.behavior)})` : ''}`
  }
  if (file.decoder && !pieceDecoder(file))
    return `the decoder ${kindsOf(file.decoder)
      .map(({ type }) => String(type))
      .join(', ')}`
  for (const token of file.added_tokens ?? []) {
    for (const flag of ['single_word', 'lstrip', 'rstrip', 'normalized'] as const) {
      if ((token as Record<string, unknown> | null)?.[flag] === true) return `an added token with ${flag}`
    }
  }
  return undefined
}

function isPlainText(pattern: unknown): boolean {
  return typeof (pattern as { String?: unknown } | null)?.String === 'string'
}
