// A JSON file: of a model, or by its path.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../errors.js'
import { parseJson } from '../json.js'
import type { Fail } from '../options/check.js'
import { readModelFile } from './model-files.js'

/** The value in a JSON file, unchecked; undefined if there is no such file. Throws MODEL_NOT_FOUND, or what `fail` makes of bad JSON. */
export async function readJsonFile(path: string, fail: Fail): Promise<unknown> {
  return parsed(path, () => readFile(path, 'utf8'), fail)
}

/** As readJsonFile, of a file that describes a model. */
export async function readModelJson(model: string, name: string, fail: Fail): Promise<unknown> {
  return parsed(join(model, name), () => readModelFile(model, name), fail)
}

async function parsed(path: string, read: () => Promise<string | undefined>, fail: Fail): Promise<unknown> {
  let text: string | undefined
  try {
    text = await read()
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cannotRead(path, cause)
  }
  if (text === undefined) return undefined
  try {
    return parseJson(text)
  } catch (cause) {
    const actual = cause instanceof Error ? cause.message : String(cause)
    throw fail({ what: 'not JSON', expected: 'a JSON object', actual, remedy: 'Fetch the file again.', cause })
  }
}

export function cannotRead(path: string, cause?: unknown): CheckpointError {
  return new CheckpointError('MODEL_NOT_FOUND', {
    what: `cannot read ${path}`,
    expected: 'a model directory with config.json and weight files',
    actual: cause instanceof Error ? cause.message : 'no such file',
    remedy: 'Check the path and its permissions.',
    cause,
  })
}
