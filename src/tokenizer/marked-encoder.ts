// Encodes a text in which some control tokens are meant as text. A second tokenizer has other names for its control tokens, names that
// nobody can guess: those that are meant are renamed in the text, the others are what they look like, and all else is the same.
import { randomBytes } from 'node:crypto'
import type { TokenizerFile } from './tokenizer-file.js'

type Encode = (text: string) => Promise<number[]>

/** `open`: a tokenizer of a changed file; made at the first marked text. */
export function markedEncoder(file: TokenizerFile, open: (renamed: TokenizerFile) => Encode): (text: string, mark: string) => Promise<number[]> {
  const secret = randomBytes(9).toString('base64url')
  const texts = (file.added_tokens ?? []).flatMap((token) => (token?.special === true && typeof token.content === 'string' ? [token.content] : []))
  const renamed = new Map(texts.map((text, i) => [text, `\u{f5c1b}${secret}${i}\u{f5c1b}`]))
  // The longest of those that begin at a place is the one that is found.
  const longestFirst = [...texts].sort((a, b) => b.length - a.length)
  const pattern = new RegExp(longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|'), 'g')
  let encode: Encode | undefined
  return (text, mark) => {
    encode ??= open(rename(file, renamed))
    const meant = texts.length === 0 ? text : text.replace(pattern, (control) => renamed.get(control) as string)
    return encode(meant.replaceAll(mark, ''))
  }
}

/** In the added tokens and, so that ids stay, in the vocabulary. */
function rename(file: TokenizerFile, names: ReadonlyMap<string, string>): TokenizerFile {
  const nameOf = (text: unknown) => (typeof text === 'string' ? (names.get(text) ?? text) : text)
  const vocab = file.model?.vocab
  const renamedVocab =
    typeof vocab !== 'object' || vocab === null
      ? vocab
      : Array.isArray(vocab)
        ? vocab.map((entry: unknown) => (Array.isArray(entry) ? [nameOf(entry[0]), ...entry.slice(1)] : entry))
        : Object.fromEntries(Object.entries(vocab).map(([text, id]) => [names.get(text) ?? text, id]))
  return {
    ...file,
    added_tokens: (file.added_tokens ?? []).map((token) => token && { ...token, content: nameOf(token.content) }),
    post_processor: null,
    ...(file.model && { model: { ...file.model, unk_token: nameOf(file.model.unk_token), vocab: renamedVocab } }),
  }
}
