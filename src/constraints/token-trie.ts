// The tokens of a vocabulary by their bytes: a tree, its nodes in the order of a walk that goes down first.

export class TokenTrie {
  readonly vocab: number
  /** By node: its byte, how many bytes come before it, and the node after all that are below it. */
  readonly bytes: Uint8Array
  readonly depths: Uint16Array
  readonly ends: Int32Array
  /** By node: a token that ends there, or -1; by token: another that ends there too, or -1. */
  readonly tokens: Int32Array
  readonly others: Int32Array
  readonly maxDepth: number

  /** bytesOf: of a token; those without bytes are left out, and those in `excluded`. */
  constructor(vocab: number, bytesOf: (id: number) => Uint8Array, excluded: ReadonlySet<number>) {
    this.vocab = vocab
    const texts: [text: string, id: number][] = []
    let total = 0
    for (let id = 0; id < vocab; id++) {
      if (excluded.has(id)) continue
      const text = Buffer.from(bytesOf(id)).toString('latin1')
      if (text === '' || text.length > 0xffff) continue
      texts.push([text, id])
      total += text.length
    }
    texts.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    const [bytes, depths, ends, tokens] = [new Uint8Array(total), new Uint16Array(total), new Int32Array(total), new Int32Array(total).fill(-1)]
    this.others = new Int32Array(vocab).fill(-1)
    /** Open nodes from the root down. */
    const path: number[] = []
    let nodes = 0
    let before = ''
    let deepest = 0
    for (const [text, id] of texts) {
      let common = 0
      while (common < before.length && common < text.length && before.charCodeAt(common) === text.charCodeAt(common)) common++
      for (; path.length > common; path.pop()) ends[path.at(-1) as number] = nodes
      for (let depth = common; depth < text.length; depth++) {
        path.push(nodes)
        bytes[nodes] = text.charCodeAt(depth)
        depths[nodes++] = depth
      }
      const node = path.at(-1) as number
      this.others[id] = tokens[node] as number
      tokens[node] = id
      deepest = Math.max(deepest, text.length)
      before = text
    }
    for (const node of path) ends[node] = nodes
    this.bytes = bytes.slice(0, nodes)
    this.depths = depths.slice(0, nodes)
    this.ends = ends.slice(0, nodes)
    this.tokens = tokens.slice(0, nodes)
    this.maxDepth = deepest
  }
}
