// The GPT-2 BPE (tiktoken "gpt2"), which the published checkpoints use without a tokenizer.json. js-tiktoken does the work;
// its ranks are loaded only here.
import type { Tokenizer } from './tokenizer.js'

/** Ids of the GPT-2 vocabulary, `<|endoftext|>` included; a model may be padded beyond. */
export const GPT2_IDS = 50257
const END_OF_TEXT = 50256

export async function gpt2Tokenizer(): Promise<Tokenizer> {
  const [{ Tiktoken }, { default: ranks }] = await Promise.all([import('js-tiktoken/lite'), import('js-tiktoken/ranks/gpt2')])
  const tiktoken = new Tiktoken(ranks)
  return {
    // Text that looks like a special token is text.
    encode: (text) => tiktoken.encode(text, [], []),
    decode: (ids) => tiktoken.decode(ids.filter((id) => id < END_OF_TEXT)),
    endOfText: END_OF_TEXT,
    idOf: (token) => (token === '<|endoftext|>' ? END_OF_TEXT : undefined),
  }
}
