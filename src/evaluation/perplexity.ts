// Perplexity by the authors' protocol (eval_ppl.py): windows of block_size tokens that do not overlap, from the first token on; the loss of a
// window is the mean cross-entropy of the token after each of its tokens. (The authors' script starts at token 512 of the raw file: that is where
// the header of their files ends.)
import { mapLimited, type Scorer } from './scoring.js'
import { invalid, TokenFile } from './token-file.js'

/** Options of engine.perplexity. */
export interface PerplexityOptions {
  /** Tokens in a window, 1 to the context. Default: the model's block_size, or the context if that is smaller. */
  blockSize?: number
  /** Number of windows. Default: all that the file holds. */
  windows?: number
  /** Where the first window starts, counted without a header. Default 0. */
  firstToken?: number
  onProgress?: (progress: { readonly done: number; readonly total: number }) => void
  /** Called with the loss of each window as it is computed, so that nothing is lost if a later one fails. */
  onWindow?: (index: number, loss: number) => void
  signal?: AbortSignal
  /** Name of a loaded adapter. Default: the model alone. */
  lora?: string
}

/** What engine.perplexity resolves with. */
export interface PerplexityResult {
  /** Mean over the windows, natural logarithm. */
  readonly meanLoss: number
  /** exp(meanLoss). */
  readonly perplexity: number
  readonly windows: number
  readonly windowLosses: readonly number[]
}

export interface ResolvedPerplexityOptions extends Pick<PerplexityOptions, 'onProgress' | 'onWindow'> {
  readonly blockSize: number
  readonly windows: number | undefined
  readonly firstToken: number
  readonly vocab: number
  readonly signal: AbortSignal | undefined
}

/** Where tokens are read from. */
interface TokenSource {
  /** As messages name it. */
  readonly name: string
  readonly tokens: number
  read(start: number, count: number): Promise<readonly number[]>
}

/** source: path of a token file, or tokens. Rejects with TetradError EVAL_DATA_INVALID, and what scoring rejects with. */
export async function perplexity(scorer: Scorer, source: string | readonly number[], options: ResolvedPerplexityOptions): Promise<PerplexityResult> {
  if (typeof source !== 'string') {
    const read = async (start: number, count: number) => source.slice(start, start + count)
    return scoreWindows(scorer, { name: 'the array of tokens', tokens: source.length, read }, options)
  }
  const file = await TokenFile.open(source)
  try {
    return await scoreWindows(scorer, { name: source, tokens: file.tokens, read: (start, count) => file.read(start, count) }, options)
  } finally {
    await file.close()
  }
}

async function scoreWindows(scorer: Scorer, source: TokenSource, options: ResolvedPerplexityOptions): Promise<PerplexityResult> {
  const { blockSize, onProgress, onWindow, signal } = options
  const starts = windowStarts(source, options)
  const total = starts.length
  // All tokens are checked first: a wrong one in the last window would waste the time of all the others.
  for (const start of starts) checkTokens(source.name, await source.read(start, blockSize + 1), start, options.vocab)
  let done = 0
  onProgress?.({ done, total })
  const windowLosses = await mapLimited(starts, scorer.concurrency, async (start, index) => {
    const ids = await source.read(start, blockSize + 1)
    const { logProbabilities } = await scorer.score(ids, 1, signal)
    const loss = -logProbabilities.reduce((sum, p) => sum + p, 0) / blockSize
    done++
    onWindow?.(index, loss)
    onProgress?.({ done, total })
    return loss
  })
  return perplexityOf(windowLosses)
}

/** Also of some of the windows. windowLosses: at least one. */
export function perplexityOf(windowLosses: readonly number[]): PerplexityResult {
  const meanLoss = windowLosses.reduce((sum, loss) => sum + loss, 0) / windowLosses.length
  return { meanLoss, perplexity: Math.exp(meanLoss), windows: windowLosses.length, windowLosses }
}

function windowStarts({ name, tokens }: TokenSource, { blockSize, firstToken, windows }: ResolvedPerplexityOptions): number[] {
  // The last target is the token after its window.
  const available = Math.max(0, Math.floor((tokens - firstToken - 1) / blockSize))
  const total = windows ?? available
  if (available >= Math.max(1, total)) return Array.from({ length: total }, (_, i) => firstToken + i * blockSize)
  const wanted = Math.max(1, total)
  throw invalid(
    name,
    `at least ${firstToken + wanted * blockSize + 1} tokens: ${wanted} windows of ${blockSize} from token ${firstToken} on, and one more`,
    `${tokens} tokens, ${available} windows`,
    available > 0 ? `Ask for at most ${available} windows.` : 'Use a longer file or a smaller block size.',
  )
}

function checkTokens(name: string, ids: readonly number[], start: number, vocab: number): void {
  const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocab)
  if (bad < 0) return
  const remedy = "Make the file with this model's tokenizer: tetrad tokenize text.txt tokens.bin."
  throw invalid(name, `token ids below the vocabulary size ${vocab}`, `${ids[bad]} at token ${start + bad}`, remedy)
}
