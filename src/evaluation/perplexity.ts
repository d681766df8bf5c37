// Perplexity by the authors' protocol (eval_ppl.py): windows of block_size tokens that do not overlap, the first at token
// 512; the loss of a window is the mean cross-entropy of the token after each of its tokens.
import { mapLimited, type Scorer } from './scoring.js'
import { invalid, TokenFile } from './token-file.js'

export interface PerplexityOptions {
  /** Tokens of a window, 1 to the context. Default: the model's block_size, or the context if that is less. */
  blockSize?: number
  /** Windows to take. Default: all that the file holds. */
  windows?: number
  /** Where the first window starts. Default 512. */
  firstToken?: number
  onProgress?: (progress: { readonly done: number; readonly total: number }) => void
  signal?: AbortSignal
}

export interface PerplexityResult {
  /** Mean over the windows, natural logarithm. */
  readonly meanLoss: number
  /** exp(meanLoss). */
  readonly perplexity: number
  readonly windows: number
  readonly windowLosses: readonly number[]
}

export interface PerplexityPlan {
  readonly blockSize: number
  readonly windows: number | undefined
  readonly firstToken: number
  readonly vocab: number
  readonly onProgress: PerplexityOptions['onProgress']
  readonly signal: AbortSignal | undefined
}

/** `source`: a token file's path, or tokens. Throws TetradError EVAL_DATA_INVALID, and what scoring throws. */
export async function perplexity(scorer: Scorer, source: string | readonly number[], plan: PerplexityPlan): Promise<PerplexityResult> {
  if (typeof source !== 'string') return overWindows(scorer, 'the array of tokens', source.length, async (at, n) => source.slice(at, at + n), plan)
  const file = await TokenFile.open(source)
  try {
    return await overWindows(scorer, source, file.tokens, (at, n) => file.read(at, n), plan)
  } finally {
    await file.close()
  }
}

async function overWindows(
  scorer: Scorer,
  name: string,
  tokens: number,
  read: (start: number, count: number) => Promise<readonly number[]>,
  { blockSize, windows, firstToken, vocab, onProgress, signal }: PerplexityPlan,
): Promise<PerplexityResult> {
  // The last target lies one token behind its window.
  const held = Math.max(0, Math.floor((tokens - firstToken - 1) / blockSize))
  const total = windows ?? held
  if (held < Math.max(1, total)) {
    throw invalid(
      name,
      `at least ${firstToken + Math.max(1, total) * blockSize + 1} tokens: ${Math.max(1, total)} windows of ${blockSize} from token ${firstToken} on, and one more`,
      `${tokens} tokens, ${held} windows`,
      held > 0 ? `Ask for at most ${held} windows.` : 'Use a longer file or a smaller block size.',
    )
  }
  let done = 0
  onProgress?.({ done, total })
  const starts = Array.from({ length: total }, (_, i) => firstToken + i * blockSize)
  const windowLosses = await mapLimited(starts, scorer.concurrency, async (start) => {
    const ids = await read(start, blockSize + 1)
    const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocab)
    if (bad >= 0) {
      const remedy = "Make the file with this model's tokenizer."
      throw invalid(name, `token ids below the vocabulary's ${vocab}`, `${ids[bad]} at token ${start + bad}`, remedy)
    }
    const { logProbabilities } = await scorer.score(ids, 1, signal)
    done++
    onProgress?.({ done, total })
    return -logProbabilities.reduce((sum, p) => sum + p, 0) / blockSize
  })
  const meanLoss = windowLosses.reduce((sum, loss) => sum + loss, 0) / total
  return { meanLoss, perplexity: Math.exp(meanLoss), windows: total, windowLosses }
}
