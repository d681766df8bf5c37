// What tokenizer.json and tokenizer_config.json say beside the vocabulary: special tokens, the token that begins a document, and
// the bytes that a token stands for.

interface AddedToken {
  readonly id?: unknown
  readonly content?: unknown
  readonly special?: unknown
}

interface Part {
  readonly type?: unknown
  readonly [key: string]: unknown
}

/** The parts of tokenizer.json that are looked at here. Nothing is checked yet: it is a stranger's file. */
export interface TokenizerFile {
  readonly added_tokens?: readonly (AddedToken | null)[] | null
  readonly normalizer?: Part | null
  readonly pre_tokenizer?: Part | null
  readonly post_processor?: Part | null
  readonly decoder?: Part | null
  readonly model?: (Part & { readonly vocab?: unknown }) | null
}

export interface TokenizerSettings {
  /** Ids of special tokens by their text. */
  readonly controls: ReadonlyMap<string, number>
  readonly bosId: number | undefined
  readonly addsBos: boolean
  readonly endOfText: number | undefined
  /** Id of a token by its text. */
  idOf(token: string): number | undefined
}

/** `config`: tokenizer_config.json. */
export function readSpecials(file: TokenizerFile, config: Record<string, unknown>): TokenizerSettings {
  const added = new Map<string, number>()
  const controls = new Map<string, number>()
  for (const token of file.added_tokens ?? []) {
    if (typeof token?.content !== 'string' || typeof token.id !== 'number') continue
    added.set(token.content, token.id)
    if (token.special === true) controls.set(token.content, token.id)
  }
  const vocab = file.model?.vocab
  const idOf = (text: unknown): number | undefined => {
    if (typeof text !== 'string') return undefined
    const known = added.get(text)
    if (known !== undefined) return known
    const id: unknown = typeof vocab === 'object' && vocab !== null && !Array.isArray(vocab) ? (vocab as Record<string, unknown>)[text] : undefined
    return typeof id === 'number' ? id : undefined
  }
  const fromProcessor = leadingId(file.post_processor, idOf)
  const named = idOf(tokenText(config.bos_token))
  const endOfText = idOf('<|endoftext|>')
  const asked = config.add_bos_token
  const bosId = fromProcessor ?? named ?? endOfText
  return { controls, bosId, addsBos: bosId !== undefined && (typeof asked === 'boolean' ? asked : fromProcessor !== undefined), endOfText, idOf }
}

/** Text of a token as tokenizer_config.json writes it: a text, or an object with one. */
export function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token
  const content = (token as { content?: unknown } | null | undefined)?.content
  return typeof content === 'string' ? content : undefined
}

/** The special token that a post-processor puts before a text. */
function leadingId(processor: Part | null | undefined, idOf: (text: unknown) => number | undefined): number | undefined {
  if (!processor) return undefined
  if (processor.type === 'Sequence' && Array.isArray(processor.processors)) {
    for (const part of processor.processors as Part[]) {
      const id = leadingId(part, idOf)
      if (id !== undefined) return id
    }
    return undefined
  }
  if (processor.type === 'TemplateProcessing' && Array.isArray(processor.single)) {
    return idOf((processor.single[0] as { SpecialToken?: { id?: unknown } } | undefined)?.SpecialToken?.id)
  }
  // BertProcessing, RobertaProcessing: cls is [text, id].
  return Array.isArray(processor.cls) && typeof processor.cls[1] === 'number' ? processor.cls[1] : undefined
}

/** Kinds of the parts of a normalizer, pre-tokenizer or decoder, sequences opened. */
export function kindsOf(part: Part | null | undefined): Part[] {
  if (!part) return []
  const inner = part.normalizers ?? part.pretokenizers ?? part.decoders ?? part.processors
  return part.type === 'Sequence' && Array.isArray(inner) ? (inner as Part[]).flatMap(kindsOf) : [part]
}

const BYTE_OF = byteAlphabet()

/** GPT-2's alphabet: printable characters stand for themselves, other bytes for characters from U+0100 on. */
function byteAlphabet(): ReadonlyMap<string, number> {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
  const map = new Map<string, number>()
  let next = 256
  for (let byte = 0; byte < 256; byte++) map.set(String.fromCodePoint(printable(byte) ? byte : next++), byte)
  return map
}

const CHARACTER_OF = new Map([...BYTE_OF].map(([character, byte]) => [byte, character]))

/** Bytes as text in GPT-2's alphabet. */
export function inByteAlphabet(bytes: Iterable<number>): string {
  let text = ''
  for (const byte of bytes) text += CHARACTER_OF.get(byte)
  return text
}

/** How the pieces of a vocabulary stand for bytes, by its decoder. */
export function pieceBytes(decoder: Part | null | undefined): (piece: string) => Uint8Array {
  const kinds = kindsOf(decoder)
  const has = (type: string) => kinds.some((part) => part.type === type)
  if (has('ByteLevel')) {
    return (piece) => {
      const bytes = [...piece].map((character) => BYTE_OF.get(character))
      return bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes) : Buffer.from(piece)
    }
  }
  const fallback = has('ByteFallback')
  const space = kinds.find((part) => part.type === 'Metaspace')?.replacement ?? (has('Replace') || has('Metaspace') ? '\u2581' : undefined)
  return (piece) => {
    const byte = fallback ? /^<0x([0-9A-F]{2})>$/.exec(piece)?.[1] : undefined
    if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16))
    return Buffer.from(typeof space === 'string' ? piece.replaceAll(space, ' ') : piece)
  }
}

/** A bound on the bytes of text that one token can stand for; Infinity where a long unknown word is one token. */
export function maxBytesPerToken(file: TokenizerFile): number {
  const { model } = file
  const vocab = model?.vocab
  const complete = model?.byte_fallback === true || kindsOf(file.pre_tokenizer).some((part) => part.type === 'ByteLevel')
  if (model?.type !== 'BPE' || !complete || typeof vocab !== 'object' || vocab === null) return Number.POSITIVE_INFINITY
  const bytesOf = pieceBytes(file.decoder)
  let longest = 1
  for (const piece of Object.keys(vocab)) if (piece.length * 4 > longest) longest = Math.max(longest, bytesOf(piece).length)
  for (const token of file.added_tokens ?? []) if (typeof token?.content === 'string') longest = Math.max(longest, Buffer.byteLength(token.content))
  // A normalizer may compose characters: at most three bytes become one.
  return file.normalizer ? 3 * longest : longest
}
