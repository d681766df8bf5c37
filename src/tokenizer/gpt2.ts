// The GPT-2 byte pair encoding (tiktoken "gpt2"), which the published checkpoints use without a tokenizer.json: js-tiktoken's table
// of ranks as a file of the Hugging Face format.
import { makeTokenizer } from './make-tokenizer.js'
import { inByteAlphabet, readSpecials, type TokenizerFile } from './tokenizer-file.js'
import type { Tokenizer } from './tokenizer-interface.js'

/** Ids of the GPT-2 vocabulary, `<|endoftext|>` included; a model may have more. */
export const GPT2_IDS = 50257
const END_OF_TEXT = 50256

/** Ids are those of Python's tiktoken with no special token allowed, so that `<|endoftext|>` in a text is text. */
export async function gpt2Tokenizer(): Promise<Tokenizer> {
  const file = await gpt2File()
  const controls = new Map([['<|endoftext|>', END_OF_TEXT]])
  return makeTokenizer(JSON.stringify(file), file, { ...readSpecials(file, {}), controls })
}

/** tokenizer.json of GPT-2. `<|endoftext|>` is in the vocabulary but no added token, so it is never found in a text. */
async function gpt2File(): Promise<TokenizerFile> {
  const { default: table } = await import('js-tiktoken/ranks/gpt2')
  const ranks = readRanks(table.bpe_ranks)
  const vocab: Record<string, number> = {}
  const merges: [string, string][] = []
  for (const [piece, rank] of ranks) {
    vocab[piece] = rank
    const parts = [...piece]
    if (parts.length > 1) merges.push(lastMerge(parts, rank, ranks))
  }
  vocab['<|endoftext|>'] = END_OF_TEXT
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  return {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges,
    },
  }
}

/** Lines of "! first-rank base64 base64 ...": pieces in GPT-2's byte alphabet, by ascending rank. */
function readRanks(text: string): Map<string, number> {
  const ranks = new Map<string, number>()
  for (const line of text.split('\n')) {
    const [, first, ...pieces] = line.split(' ')
    for (const [i, piece] of pieces.entries()) ranks.set(inByteAlphabet(Buffer.from(piece, 'base64')), Number(first) + i)
  }
  return new Map([...ranks].sort(([, a], [, b]) => a - b))
}

/** The two pieces that the merge of this rank joins: what is left of the piece when only merges of lower ranks are done. */
function lastMerge(parts: string[], rank: number, ranks: ReadonlyMap<string, number>): [string, string] {
  while (parts.length > 2) {
    let best = -1
    let bestRank = rank
    for (let i = 0; i + 1 < parts.length; i++) {
      const joined = ranks.get(`${parts[i]}${parts[i + 1]}`)
      if (joined !== undefined && joined < bestRank) [best, bestRank] = [i, joined]
    }
    if (best < 0) throw new Error('the GPT-2 ranks are damaged')
    parts.splice(best, 2, `${parts[best]}${parts[best + 1]}`)
  }
  return parts as [string, string]
}
