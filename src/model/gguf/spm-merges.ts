// Merges of a SentencePiece vocabulary, which states scores instead: the pair whose piece scores highest is joined first. As transformers
// converts such vocabularies (convert_slow_tokenizer.py, generate_merges).

/** Longer pieces would take quadratic time. */
const MAX_PIECE = 256

interface Merge {
  readonly left: string
  readonly right: string
  readonly score: number
}

/** In the order in which they are applied. Throws what `tooLong` makes. */
export function mergesByScore(ids: ReadonlyMap<string, number>, scores: readonly number[], tooLong: (piece: string) => Error): [string, string][] {
  const merges: Merge[] = []
  for (const [piece, id] of ids) {
    const characters = Array.from(piece)
    if (characters.length > MAX_PIECE) throw tooLong(piece)
    const own: Merge[] = []
    for (let at = 1; at < characters.length; at++) {
      const left = characters.slice(0, at).join('')
      const right = characters.slice(at).join('')
      if (ids.has(left) && ids.has(right)) own.push({ left, right, score: scores[id] as number })
    }
    own.sort((a, b) => (ids.get(a.left) as number) - (ids.get(b.left) as number) || (ids.get(a.right) as number) - (ids.get(b.right) as number))
    merges.push(...own)
  }
  // Equal ones keep their order, as in Python, whose sort with reverse keeps it too.
  const length = (text: string) => Array.from(text).length
  return merges
    .sort((a, b) => b.score - a.score || length(b.left) - length(a.left) || length(b.right) - length(a.right))
    .map(({ left, right }) => [left, right])
}
