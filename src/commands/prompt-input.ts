// Where the prompt of `tetrad generate` comes from: an argument, a file, a pipe, or token ids.
import { fstatSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { text as readAll } from 'node:stream/consumers'
import { type ErrorFacts, RequestError } from '../errors.js'
import { checkDirectory } from '../model/check-directory.js'
import { readModelConfig } from '../model/model-config.js'
import { readModelFile } from '../model/model-files.js'
import { invalidOption } from '../options/check.js'
import { GPT2_IDS } from '../tokenizer/gpt2.js'

export const DEFAULT_PROMPT = 'Once upon a time'

export interface PromptFlags {
  readonly promptIds?: number[]
  readonly promptFile?: string
}

/** Throws OptionError for two prompts, or a file that cannot be read. One line break at the end of a file or pipe is removed. */
export async function readPrompt(argument: string | undefined, { promptIds, promptFile }: PromptFlags): Promise<string | readonly number[]> {
  const given = [argument !== undefined && 'the argument', promptIds && '--prompt-ids', promptFile !== undefined && '--prompt-file'].filter(Boolean)
  if (given.length > 1) {
    throw invalidOption({
      what: 'the prompt is given twice',
      expected: 'one prompt',
      actual: `${given.join(' and ')}, not both`,
      remedy: 'Remove one.',
    })
  }
  if (promptIds) return promptIds
  if (promptFile !== undefined) return withoutLastBreak(await readPromptFile(promptFile))
  if (argument !== undefined && argument !== '-') return argument
  if (argument === undefined && !isPiped()) return DEFAULT_PROMPT
  return withoutLastBreak(await readAll(process.stdin))
}

async function readPromptFile(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw invalidOption({
      what: `--prompt-file ${path} cannot be read`,
      expected: 'a text file',
      actual: (cause as Error).message,
      remedy: 'Check the path and its permissions.',
      cause,
      option: '--prompt-file',
    })
  }
}

/** Something is connected to stdin: a pipe, a socket (as Node's child processes have it) or a file, but not a terminal or /dev/null. */
function isPiped(): boolean {
  try {
    const stdin = fstatSync(0)
    return stdin.isFIFO() || stdin.isFile() || stdin.isSocket()
  } catch {
    return false
  }
}

function withoutLastBreak(text: string): string {
  return text.replace(/\r?\n$/, '')
}

/** Size of the model's vocabulary, once the prompt was checked as far as files without weights allow. Throws what Engine.load and generate would throw. */
export async function checkPrompt(dir: string, prompt: string | readonly number[]): Promise<number> {
  await checkDirectory(dir)
  const { vocab, decoder } = await readModelConfig(dir)
  if (prompt.length === 0) {
    throw new RequestError('PROMPT_EMPTY', {
      what: 'the prompt has no tokens',
      expected: 'at least one token',
      actual: 'none',
      remedy: 'Give a text or token ids.',
    })
  }
  if (typeof prompt === 'string') {
    const hasGpt2 = decoder.tokenizer === 'gpt2' && vocab >= GPT2_IDS
    if (!hasGpt2 && (await readModelFile(dir, 'tokenizer.json')) === undefined) throw noTokenizer(dir, vocab)
    return vocab
  }
  const wrong = prompt.find((id) => id >= vocab)
  if (wrong === undefined) return vocab
  throw new RequestError('TOKEN_INVALID', {
    what: '--prompt-ids has an id that is not in the vocabulary',
    expected: `integers from 0 to ${vocab - 1}`,
    actual: String(wrong),
    remedy: "Use this model's tokenizer.",
  })
}

function noTokenizer(dir: string, vocab: number): RequestError {
  const facts: ErrorFacts = {
    what: `${dir} has no tokenizer.json`,
    expected: 'token ids',
    actual: 'a text',
    remedy: `Give token ids, for example --prompt-ids 1,2,3 (0 to ${vocab - 1}); the answer is token ids too.`,
  }
  return new RequestError('TOKENIZER_MISSING', facts)
}
