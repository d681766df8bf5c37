// npm tokenizers: the Rust library in its own Node build. encode runs on libuv's threads.
import { createSyncFn } from 'synckit'
import { assetUrl } from '../assets.js'
import type { EncodeJob } from './encode-worker.js'
import { markedEncoder } from './marked-encoder.js'
import { maxBytesPerToken, pieceBytes, type TokenizerFile, type TokenizerSettings } from './tokenizer-file.js'
import type { Tokenizer } from './tokenizer-interface.js'

const NO_BYTES = new Uint8Array(0)
/** By a variable, so that a bundler does not follow it to binaries that it cannot read. */
const LIBRARY: string = 'tokenizers'
let blocking: ((job: EncodeJob) => number[]) | undefined

/** Undefined where the library has no binary for this system. Throws what the library says of a file that it cannot read. */
export async function rustTokenizer(json: string, file: TokenizerFile, settings: TokenizerSettings): Promise<Tokenizer | undefined> {
  const library = await (import(LIBRARY) as Promise<typeof import('tokenizers')>).catch(() => undefined)
  if (!library) return undefined
  const tokenizer = library.Tokenizer.fromString(json)
  const { controls } = settings
  const marked = markedEncoder(file, (renamed) => {
    const other = library.Tokenizer.fromString(JSON.stringify(renamed))
    return (text) => encodeWith(other, text)
  })
  const special = new Set(controls.values())
  const decoder = tokenizer.getDecoder()
  const toBytes = pieceBytes(file.decoder)
  const encodeWith = async (which: typeof tokenizer, text: string) => (await which.encode(text, null, { addSpecialTokens: false })).getIds()
  return {
    library: 'tokenizers',
    encode: (text) => {
      blocking ??= createSyncFn(assetUrl('dist/src/tokenizer/encode-worker.js'))
      return blocking({ json, text })
    },
    encodeAsync: (text) => encodeWith(tokenizer, text),
    encodeMarked: ({ text, mark }) => (text.includes(mark) ? marked(text, mark) : encodeWith(tokenizer, text)),
    decode: (ids) => {
      const pieces: string[] = []
      for (const id of ids) {
        const piece = special.has(id) ? null : tokenizer.idToToken(id)
        if (piece !== null) pieces.push(piece)
      }
      return decoder ? decoder.decode(pieces) : pieces.join(' ')
    },
    bytesOf: (id) => {
      const piece = special.has(id) ? null : tokenizer.idToToken(id)
      return piece === null ? NO_BYTES : toBytes(piece)
    },
    controlId: (text) => controls.get(text),
    idOf: settings.idOf,
    controlTokens: [...controls.keys()],
    bosId: settings.bosId,
    addsBos: settings.addsBos,
    endOfText: settings.endOfText,
    maxBytesPerToken: maxBytesPerToken(file),
  }
}
