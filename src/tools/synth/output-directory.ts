// A directory that a model may be written to: without one yet, and with room for it.

import { mkdir, readdir, statfs } from 'node:fs/promises'
import { TetradError } from '../../errors.js'
import { mib } from '../../mib.js'
import { show } from '../../options/check.js'

/** Makes the directory. Throws TetradError OUTPUT_EXISTS or OUTPUT_FAILED. */
export async function checkOutput(dir: string, bytes: number): Promise<void> {
  let names: string[]
  try {
    await mkdir(dir, { recursive: true })
    names = await readdir(dir)
  } catch (error) {
    throw outputFailed(dir, error)
  }
  const model = names.find((name) => name === 'config.json' || /\.(bin|safetensors|index\.json)$/.test(name))
  if (model !== undefined) {
    throw new TetradError('OUTPUT_EXISTS', {
      what: `${dir} holds a model already`,
      expected: 'a directory without one, or a new path',
      actual: model,
      remedy: 'Choose another directory, or remove the model first.',
    })
  }
  const { bavail, bsize } = await statfs(dir)
  if (bavail * bsize > bytes) return
  throw new TetradError('OUTPUT_FAILED', {
    what: `${dir} does not have enough free space`,
    expected: mib(bytes),
    actual: `${mib(bavail * bsize)} free`,
    remedy: 'Free space, or choose another directory.',
  })
}

export function outputFailed(dir: string, cause: unknown): TetradError {
  return new TetradError('OUTPUT_FAILED', {
    what: `cannot write to ${dir}`,
    expected: 'a directory that can be written to',
    actual: cause instanceof Error ? cause.message : show(cause),
    remedy: 'Check the path, its permissions and the room on its disk.',
    cause,
  })
}
