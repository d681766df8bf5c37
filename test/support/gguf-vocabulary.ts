// The vocabulary of a tokenizer.json as llama.cpp's converter writes it into a GGUF file.
import type { GgufValue } from './gguf-file.js'

interface TokenizerJson {
  readonly added_tokens: readonly { readonly id: number; readonly content: string; readonly special: boolean }[]
  readonly model: { readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly (string | readonly [string, string])[] }
}

const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

function pieceOf(merge: string | readonly [string, string]): string {
  return typeof merge === 'string' ? merge.replace(' ', '') : merge.join('')
}

/** `pre`: the name of the pre-tokenizer; undefined: SentencePiece, with scores that follow from the merges. */
export function ggufVocabulary({ added_tokens, model }: TokenizerJson, pre: string | undefined, size = 0): Record<string, GgufValue> {
  const ids = new Map(Object.entries(model.vocab).map(([token, id]) => [id, token]))
  const added = new Map(added_tokens.map((token) => [token.id, token]))
  const count = [...ids.keys(), ...added.keys()].reduce((most, id) => Math.max(most, id + 1), size)
  const all = Array.from({ length: count }, (_, id) => id)
  const kindOf = (id: number) => {
    const token = added.get(id)
    if (token?.content === '<unk>') return KIND.unknown
    if (token) return token.special ? KIND.control : KIND.userDefined
    const text = ids.get(id)
    if (text === undefined) return KIND.unused
    return pre === undefined && /^<0x[0-9A-F]{2}>$/.test(text) ? KIND.byte : KIND.normal
  }
  const tokens = all.map((id) => added.get(id)?.content ?? ids.get(id) ?? `[PAD${id}]`)
  const vocabulary: Record<string, GgufValue> = {
    'tokenizer.ggml.model': { text: pre === undefined ? 'llama' : 'gpt2' },
    'tokenizer.ggml.tokens': { texts: tokens },
    'tokenizer.ggml.token_type': { i32s: all.map(kindOf) },
  }
  if (pre === undefined) {
    // A piece scores by the first merge that makes it.
    const ranks = new Map([...model.merges.entries()].reverse().map(([rank, merge]) => [pieceOf(merge), -rank]))
    return { ...vocabulary, 'tokenizer.ggml.scores': { f32s: all.map((id) => ranks.get(tokens[id] as string) ?? -1e9) } }
  }
  const merges = model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')))
  return { ...vocabulary, 'tokenizer.ggml.pre': { text: pre }, 'tokenizer.ggml.merges': { texts: merges } }
}
