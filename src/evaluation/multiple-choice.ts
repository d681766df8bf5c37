// Multiple choice as in lm-evaluation-harness: the log-likelihood of each choice after its query; acc takes the largest
// sum, acc_norm the largest sum per character of the choice.
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { TetradError } from '../errors.js'
import { parseJson } from '../json.js'
import { show } from '../options/check.js'
import { mapLimited } from './scoring.js'
import { invalid } from './token-file.js'

export interface MultipleChoiceItem {
  readonly query: string
  readonly choices: readonly string[]
  /** Index of the right choice. */
  readonly gold: number
}

/** What engine.loglikelihood gives. */
export interface LogLikelihood {
  /** Natural logarithm of the probability of the whole continuation. */
  readonly sum: number
  /** By token of the continuation. */
  readonly perToken: readonly number[]
  /** Greedy decoding of the context would give the continuation. */
  readonly isGreedy: boolean
}

export interface MultipleChoiceOptions {
  /** Put `<|endoftext|>` before every query. Default false. */
  bos?: boolean
  onProgress?: (progress: { readonly done: number; readonly total: number }) => void
  signal?: AbortSignal
}

export interface ScoredItem {
  readonly loglikelihoods: readonly number[]
  /** 1 if the choice taken is the right one. */
  readonly acc: 0 | 1
  readonly acc_norm: 0 | 1
}

export interface MultipleChoiceResult {
  /** Share of items, 0..1. */
  readonly acc: number
  readonly acc_norm: number
  /** Standard errors of the two. */
  readonly acc_stderr: number
  readonly acc_norm_stderr: number
  readonly items: readonly ScoredItem[]
}

/** `source`: a JSONL file's path, or items. Throws TetradError EVAL_DATA_INVALID, and what `loglikelihood` throws. */
export async function multipleChoice(
  loglikelihood: (query: string, choice: string) => Promise<LogLikelihood>,
  concurrency: number,
  source: string | readonly MultipleChoiceItem[],
  onProgress: MultipleChoiceOptions['onProgress'],
): Promise<MultipleChoiceResult> {
  const items =
    typeof source === 'string'
      ? await readItems(source)
      : source.map((item, i) => checkItem(item, (p) => problem('the array', `item ${i}: ${p.what}`, p)))
  if (items.length === 0) throw invalid(typeof source === 'string' ? source : 'the array of items', 'at least one item', 'none', 'Give some.')
  let done = 0
  onProgress?.({ done, total: items.length })
  const scored = await mapLimited(items, concurrency, async ({ query, choices, gold }) => {
    // The first choice leaves the query's keys and values in the prefix cache for the others.
    const [first, ...rest] = choices as [string, ...string[]]
    const sums = [(await loglikelihood(query, first)).sum]
    for (const { sum } of await Promise.all(rest.map((choice) => loglikelihood(query, choice)))) sums.push(sum)
    done++
    onProgress?.({ done, total: items.length })
    const perCharacter = sums.map((sum, i) => sum / [...(choices[i] as string)].length)
    return { loglikelihoods: sums, acc: hit(sums, gold), acc_norm: hit(perCharacter, gold) }
  })
  const acc = mean(scored.map((s) => s.acc))
  const accNorm = mean(scored.map((s) => s.acc_norm))
  const stderr = (p: number) => (scored.length > 1 ? Math.sqrt((p * (1 - p)) / (scored.length - 1)) : 0)
  return { acc, acc_norm: accNorm, acc_stderr: stderr(acc), acc_norm_stderr: stderr(accNorm), items: scored }
}

/** The first of the largest wins. */
function hit(values: readonly number[], gold: number): 0 | 1 {
  return values.indexOf(Math.max(...values)) === gold ? 1 : 0
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, v) => sum + v, 0) / values.length
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
  if (typeof query !== 'string') throw fail({ what: 'query is no text', expected: 'a string', actual: show(query) })
  if (!Array.isArray(choices) || choices.length === 0 || choices.some((c) => typeof c !== 'string' || c === ''))
    throw fail({ what: 'choices are no texts', expected: 'an array of one or more strings that are not empty', actual: show(choices) })
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
