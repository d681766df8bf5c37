// Chooses the library.
import { javascriptTokenizer } from './javascript-tokenizer.js'
import { rustTokenizer } from './rust-tokenizer.js'
import type { TokenizerFile, TokenizerSettings } from './tokenizer-file.js'
import type { Tokenizer } from './tokenizer-interface.js'

/** The Rust library where it loads, else the JavaScript one, which refuses what it would do differently. */
export async function makeTokenizer(json: string, file: TokenizerFile, settings: TokenizerSettings): Promise<Tokenizer> {
  return (await rustTokenizer(json, file, settings)) ?? (await javascriptTokenizer(json, file, settings))
}
