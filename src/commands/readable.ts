// A file of an evaluation, looked for before the model is loaded.
import { access, constants } from 'node:fs/promises'
import { TetradError } from '../errors.js'

/** Throws TetradError EVAL_DATA_INVALID. */
export async function readable(path: string): Promise<void> {
  try {
    await access(path, constants.R_OK)
  } catch (cause) {
    throw new TetradError('EVAL_DATA_INVALID', {
      what: `${path} cannot be read`,
      expected: 'a file',
      actual: cause instanceof Error ? cause.message : String(cause),
      remedy: 'Check the path and its permissions.',
      cause,
    })
  }
}
