// What a user gave as a model: a directory, a .gguf file, or something that is often taken for one.
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CheckpointError } from '../errors.js'
import { invalidOption, show } from '../options/check.js'

/** Throws OptionError for what is not a path, and CheckpointError MODEL_NOT_FOUND for what is not a directory. */
export async function checkDirectory(dir: unknown): Promise<void> {
  if (typeof dir !== 'string' || dir === '') {
    throw invalidOption({
      what: 'the model is not a path',
      expected: 'the path of a directory, or undefined for the embedded model',
      actual: dir instanceof URL ? `a URL, ${dir.href.slice(0, 60)}` : show(dir),
      remedy: dir instanceof URL ? 'Pass fileURLToPath(url).' : 'Pass the path as the first argument, and options as the second.',
      option: 'dir',
    })
  }
  const found = await stat(dir).catch((error: NodeJS.ErrnoException) => error)
  if (found instanceof Error) {
    // Whatever else is wrong with the path is told by whoever reads the files.
    if (found.code !== 'ENOENT') return
    throw new CheckpointError('MODEL_NOT_FOUND', {
      what: `there is no directory ${dir}`,
      expected: 'a directory with config.json and the weights',
      actual: 'no such file or directory',
      remedy: /^[\w.-]+\/[\w.-]+$/.test(dir) ? `If ${dir} is a repository of the Hugging Face Hub, give hf:${dir}.` : 'Check the path.',
      cause: found,
    })
  }
  if (found.isDirectory() || dir.endsWith('.gguf')) return
  throw new CheckpointError('MODEL_NOT_FOUND', {
    what: `${dir} is a file`,
    expected: 'a directory with config.json and the weights, or a .gguf file',
    actual: 'a file',
    remedy: `Give the directory: ${dirname(dir)}.`,
  })
}
