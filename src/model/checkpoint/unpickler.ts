// Reads the pickle of a PyTorch state dict without running anything.
import { basename } from 'node:path'
import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'
import type { SkippedEntry } from './buffers.js'
import { Unpickler } from './pickle-machine.js'
import { damaged, describe, isTensor, type PickledTensor } from './pickle-values.js'
import { PYTHON } from './python-lines.js'
import { findStateDict } from './state-dict.js'

export type { PickledStorage, PickledTensor } from './pickle-values.js'

const MAX_BYTES = 64 << 20

/**
 * Tensors of the state dict by name. It may lie under a key, as in {'model': ...}. What is beside the tensors goes to `onSkipped`.
 * Throws CheckpointError CHECKPOINT_UNSAFE, CHECKPOINT_INVALID or TENSOR_DTYPE.
 */
export function unpickleStateDict(bytes: Uint8Array, path: string, onSkipped?: (entry: SkippedEntry) => void): Map<string, PickledTensor> {
  if (bytes.length > MAX_BYTES) throw damaged(path, `its pickle has ${bytes.length} bytes`, `at most ${MAX_BYTES}`)
  const value = new Unpickler(bytes, path).run()
  if (!(value instanceof Map)) throw damaged(path, `its pickle holds ${describe(value)}, not a dict`, 'a state dict: names to tensors')
  const found = findStateDict(value, isTensor)
  if (found && 'candidates' in found) {
    const keys = found.candidates.map((key) => `['${key.slice(0, 40)}']`).join(', ')
    throw new CheckpointError('CHECKPOINT_INVALID', {
      what: `${path}: it holds several state dicts: ${keys}`,
      expected: 'one state dict',
      actual: `${found.candidates.length}`,
      remedy: `Keep one: ${PYTHON.only(basename(path), found.candidates[0] ?? 'model')}`,
    })
  }
  if (!found && value.size > 0) {
    const keys = [...value.keys()].slice(0, 8).map(show).join(', ')
    throw damaged(path, `its dict holds no tensors, nor a state dict of tensors; its keys are ${keys}`, 'a state dict: names to tensors')
  }
  const tensors = new Map<string, PickledTensor>()
  for (const [name, tensor] of found?.entries ?? []) {
    if (typeof name !== 'string') throw damaged(path, `its state dict has the key ${show(name)}`, 'names to tensors')
    if (isTensor(tensor)) tensors.set(name, tensor)
    else onSkipped?.({ name, type: describe(tensor), shape: [] })
  }
  return tensors
}
