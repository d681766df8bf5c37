// A JSON file of a model directory.
import { readFile } from 'node:fs/promises'
import { CheckpointError } from '../errors.js'
import { parseJson } from '../json.js'
import type { Fail } from '../options/check.js'

/** The value in a JSON file, unchecked; undefined if there is no such file. Throws MODEL_NOT_FOUND, or what `fail` makes of bad JSON. */
export async function readJsonFile(path: string, fail: Fail): Promise<unknown> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cannotRead(path, cause)
  }
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
