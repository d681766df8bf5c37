// tetrad tokenize text.txt tokens.bin: a text as the file of tokens that eval perplexity reads.
import { readFile, writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { EMBEDDED_MODEL } from '../assets.js'
import { openModel } from '../engine/model.js'
import { CheckpointError, OptionError, RequestError, TetradError } from '../errors.js'
import { MAX_FILE_VOCAB, tokenFileBytes } from '../evaluation/token-file.js'
import { loadTokenizer } from '../tokenizer/tokenizer.js'
import { MODEL_DOC } from './flags.js'
import { commandModel } from './local-model.js'
import { interruption } from './progress.js'

interface TokenizeFlags {
  model: string
  bos?: boolean
  force?: boolean
  json?: boolean
}

export function addTokenize(program: Command): void {
  program
    .command('tokenize')
    .description('write the tokens of a text to a file for eval perplexity: a header, then little-endian uint16')
    .argument('<text>', 'UTF-8 text file')
    .argument('<tokens>', 'file to write (.bin)')
    .option('--model <model>', MODEL_DOC, EMBEDDED_MODEL)
    .option('--bos', 'put <|endoftext|> before the text, as before every document of the published training data')
    .option('--force', 'overwrite the file')
    .option('--json', 'print one line of JSON on stdout and nothing else there')
    .action(tokenize)
}

async function tokenize(path: string, out: string, flags: TokenizeFlags): Promise<void> {
  const model = await commandModel(flags.model, interruption(), flags.json)
  const { config } = await openModel(model, undefined)
  const tokenizer = await loadTokenizer(model, config.vocab, config.decoder.tokenizer)
  if (!tokenizer) {
    throw new RequestError('TOKENIZER_MISSING', {
      what: `${flags.model} has no tokenizer.json`,
      expected: 'a model with a tokenizer',
      remedy: 'Add the tokenizer.json that the model was trained with.',
    })
  }
  if (config.vocab > MAX_FILE_VOCAB) {
    throw new CheckpointError('TOKENIZER_INVALID', {
      what: 'the vocabulary does not fit a file of uint16 tokens',
      expected: `at most ${MAX_FILE_VOCAB} ids`,
      actual: String(config.vocab),
      remedy: 'Pass tokens to engine.perplexity as an array.',
    })
  }
  const ids = [...prefix(flags.bos === true, tokenizer.endOfText), ...tokenizer.encode(await readText(path))]
  await writeFile(out, tokenFileBytes(ids), { flag: flags.force ? 'w' : 'wx' }).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'EEXIST') {
      throw new TetradError('OUTPUT_EXISTS', { what: `${out} exists`, remedy: 'Name another file, or pass --force to overwrite it.', cause })
    }
    throw new TetradError('OUTPUT_FAILED', {
      what: `cannot write ${out}`,
      actual: cause.message,
      remedy: 'Check the path, its permissions and the free space on its disk.',
      cause,
    })
  })
  if (flags.json) console.log(JSON.stringify({ tokens: ids.length, file: out }))
  else console.error(`${ids.length} tokens in ${out}`)
}

function prefix(bos: boolean, endOfText: number | undefined): number[] {
  if (!bos) return []
  if (endOfText !== undefined) return [endOfText]
  throw new OptionError('OPTION_INVALID', {
    what: '--bos cannot be used with this model',
    expected: 'a tokenizer with <|endoftext|>',
    actual: 'a tokenizer without it',
    remedy: 'Leave --bos out.',
  })
}

async function readText(path: string): Promise<string> {
  try {
    // Not a decoder that replaces: other bytes would become other tokens without a word.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await readFile(path))
  } catch (cause) {
    throw new TetradError('EVAL_DATA_INVALID', {
      what: `cannot read ${path}`,
      expected: 'a text file in UTF-8',
      actual: (cause as Error).message,
      remedy: 'Check the path and its permissions, or convert the text to UTF-8.',
      cause,
    })
  }
}
