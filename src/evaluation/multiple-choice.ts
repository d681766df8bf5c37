// Multiple choice as in lm-evaluation-harness: the log-likelihood of each choice after its query. acc takes the choice with the largest sum,
// acc_norm the one with the largest sum per character.
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { RequestError, TetradError } from '../errors.js'
import { parseJson } from '../json.js'
import { show } from '../options/check.js'
import { mapLimited } from './scoring.js'
import { invalid } from './token-file.js'

/** A question with its choices. */
export interface MultipleChoiceItem {
  readonly query: string
  readonly choices: readonly string[]
  /** Index of the right choice. */
  readonly gold: number
}

/** What engine.loglikelihood resolves to. */
export interface LogLikelihood {
  /** Natural logarithm of the probability of the whole continuation. */
  readonly sum: number
  /** For each token of the continuation. */
  readonly perToken: readonly number[]
  /** Whether greedy decoding of the context would give the continuation. */
  readonly isGreedy: boolean
}

/** Options of engine.multipleChoice. */
export interface MultipleChoiceOptions {
  /** Put `<|endoftext|>` before every query. Default false. */
  bos?: boolean
  onProgress?: (progress: { readonly done: number; readonly total: number }) => void
  /** Called with each item as it is scored, so that nothing is lost if a later one fails. */
  onItem?: (index: number, item: ScoredItem) => void
  signal?: AbortSignal
  /** Name of a loaded adapter. Default: the model alone. */
  lora?: string
}

/** The score of one item. */
export interface ScoredItem {
  /** Of each choice; empty if the item could not be scored. */
  readonly loglikelihoods: readonly number[]
  /** 1 if the choice with the largest log-likelihood is the right one. */
  readonly acc: 0 | 1
  readonly acc_norm: 0 | 1
  /** Tokens that were cut from the left of the query because the item is longer than the context. Absent: none. */
  readonly truncatedTokens?: number
  /** Why the item could not be scored. It does not count for acc and acc_norm. */
  readonly error?: string
}

/** What engine.multipleChoice resolves with. */
export interface MultipleChoiceResult {
  /** Share of the scored items, 0..1. */
  readonly acc: number
  readonly acc_norm: number
  /** Standard errors of the two. */
  readonly acc_stderr: number
  readonly acc_norm_stderr: number
  /** Items whose query was cut because they are longer than the context. */
  readonly truncated: number
  /** Items that could not be scored. */
  readonly unscored: number
  readonly items: readonly ScoredItem[]
}

/** Scores a choice; cuts the query from the left if both are longer than the context. */
export type ChoiceScorer = (query: string, choice: string) => Promise<{ readonly sum: number; readonly truncatedTokens: number }>

/** Errors of a request that concern its item alone. */
const ITEM_ERRORS = new Set(['PROMPT_TOO_LONG', 'PROMPT_EMPTY', 'TOKEN_INVALID', 'NON_FINITE_LOGITS', 'TIMEOUT'])

/** source: path of a JSONL file, or items. Rejects with TetradError EVAL_DATA_INVALID, and with errors of `score` that concern all items. */
export async function multipleChoice(
  score: ChoiceScorer,
  concurrency: number,
  source: string | readonly MultipleChoiceItem[],
  { onProgress, onItem }: Pick<MultipleChoiceOptions, 'onProgress' | 'onItem'>,
): Promise<MultipleChoiceResult> {
  const items =
    typeof source === 'string'
      ? await readItems(source)
      : source.map((item, i) => checkItem(item, (p) => problem('the array', `item ${i}: ${p.what}`, p)))
  const name = typeof source === 'string' ? source : 'the array of items'
  if (items.length === 0) throw invalid(name, 'at least one item', 'none', 'Give at least one.')
  let done = 0
  onProgress?.({ done, total: items.length })
  const scored = await mapLimited(items, concurrency, async (item, index) => {
    const result = await scoreItem(score, item)
    done++
    onItem?.(index, result)
    onProgress?.({ done, total: items.length })
    return result
  })
  return multipleChoiceOf(scored)
}

async function scoreItem(score: ChoiceScorer, { query, choices, gold }: MultipleChoiceItem): Promise<ScoredItem> {
  try {
    // The first choice leaves the query in the prefix cache for the others.
    const [first, ...rest] = choices as [string, ...string[]]
    const scores = [await score(query, first)]
    scores.push(...(await Promise.all(rest.map((choice) => score(query, choice)))))
    const sums = scores.map(({ sum }) => sum)
    const perCharacter = sums.map((sum, i) => sum / [...(choices[i] as string)].length)
    const truncatedTokens = Math.max(...scores.map((choice) => choice.truncatedTokens))
    return {
      loglikelihoods: sums,
      acc: isRight(sums, gold),
      acc_norm: isRight(perCharacter, gold),
      ...(truncatedTokens > 0 && { truncatedTokens }),
    }
  } catch (error) {
    if (!(error instanceof RequestError) || !ITEM_ERRORS.has(error.code)) throw error
    return { loglikelihoods: [], acc: 0, acc_norm: 0, error: error.message }
  }
}

/** Also of some of the items. */
export function multipleChoiceOf(items: readonly ScoredItem[]): MultipleChoiceResult {
  const scored = items.filter(({ error }) => error === undefined)
  const acc = mean(scored.map((item) => item.acc))
  const accNorm = mean(scored.map((item) => item.acc_norm))
  const stderr = (p: number) => (scored.length > 1 ? Math.sqrt((p * (1 - p)) / (scored.length - 1)) : 0)
  return {
    acc,
    acc_norm: accNorm,
    acc_stderr: stderr(acc),
    acc_norm_stderr: stderr(accNorm),
    truncated: scored.filter(({ truncatedTokens = 0 }) => truncatedTokens > 0).length,
    unscored: items.length - scored.length,
    items,
  }
}

/** Of equal values the first counts as the largest. */
function isRight(values: readonly number[], gold: number): 0 | 1 {
  return values.indexOf(Math.max(...values)) === gold ? 1 : 0
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, v) => sum + v, 0) / values.length
}

interface Problem {
  readonly what: string
  readonly expected: string
  readonly actual: string
}

async function readItems(path: string): Promise<MultipleChoiceItem[]> {
  const items: MultipleChoiceItem[] = []
  let line = 0
  try {
    for await (const text of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
      line++
      if (text.trim() === '') continue
      const fail = (p: Problem) => problem(path, `line ${line}: ${p.what}`, p)
      let parsed: unknown
      try {
        parsed = parseJson(text)
      } catch (error) {
        throw fail({ what: 'not JSON', expected: 'a JSON object', actual: (error as Error).message })
      }
      items.push(checkItem(parsed, fail))
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw invalid(path, 'a file of items', (error as Error).message, 'Check the path and its permissions.', error)
  }
  return items
}

function checkItem(value: unknown, fail: (problem: Problem) => TetradError): MultipleChoiceItem {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw fail({ what: 'not an object', expected: 'query, choices, gold', actual: show(value) })
  const { query, choices, gold } = value as Record<string, unknown>
  if (typeof query !== 'string') throw fail({ what: 'query must be a string', expected: 'a string', actual: show(query) })
  if (!Array.isArray(choices) || choices.length === 0 || choices.some((c) => typeof c !== 'string' || c === ''))
    throw fail({ what: 'choices must be strings', expected: 'an array of one or more strings that are not empty', actual: show(choices) })
  if (typeof gold !== 'number' || !Number.isInteger(gold) || gold < 0 || gold >= choices.length)
    throw fail({ what: 'gold is out of range', expected: `an integer from 0 to ${choices.length - 1}`, actual: show(gold) })
  return { query, choices: choices as string[], gold }
}

function problem(name: string, what: string, { expected, actual }: Problem): TetradError {
  return new TetradError('EVAL_DATA_INVALID', {
    what: `${name}, ${what}`,
    expected,
    actual,
    remedy: 'Correct it: one JSON object a line with query, choices and gold.',
  })
}
