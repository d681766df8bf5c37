// Where a state dict lies in what torch.save was given, and the names of its tensors without the prefixes of wrappers.

/** Keys under which training scripts keep the weights. */
const WEIGHT_KEYS = ['model', 'state_dict', 'model_state_dict', 'module', 'net', 'network', 'weights', 'params']

/** What torch.compile, FSDP and activation checkpointing put into names, anywhere. */
const WRAPPERS = new Set(['_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_flat_param', '_forward_module'])

export interface FoundStateDict {
  /** Keys that lead to it: ['model']; empty if the file is one. */
  readonly path: readonly string[]
  readonly entries: ReadonlyMap<unknown, unknown>
}

/** Several dicts of tensors, none of which is known to be the one. */
export interface AmbiguousStateDict {
  readonly candidates: readonly string[]
}

/**
 * The state dict in a pickled value: the value itself, or the dict of tensors under the key of a training checkpoint.
 * Undefined: there is none.
 */
export function findStateDict(value: unknown, isTensor: (value: unknown) => boolean): FoundStateDict | AmbiguousStateDict | undefined {
  const path: string[] = []
  let at = value
  // Wrappers of wrappers are as deep as this: {'state_dict': {'model': ...}}.
  for (let depth = 0; depth < 4 && at instanceof Map; depth++) {
    const nested = [...(at as Map<unknown, unknown>)].filter(
      (entry): entry is [string, Map<unknown, unknown>] =>
        typeof entry[0] === 'string' && entry[1] instanceof Map && leadsToTensors(entry[0], entry[1], isTensor),
    )
    const known = nested.filter(([key]) => WEIGHT_KEYS.includes(key))
    const direct = [...at.values()].some(isTensor)
    const candidates = known.length > 0 ? known : direct ? [] : nested
    if (candidates.length > 1) return { candidates: candidates.map(([key]) => key) }
    const [next] = candidates
    if (!next) return direct ? { path, entries: at } : undefined
    path.push(next[0])
    at = next[1]
  }
  return undefined
}

/** A dict of tensors by name, or one that wraps such a dict. An optimizer's state has numbers as keys, or names without a dot. */
function leadsToTensors(at: string, dict: Map<unknown, unknown>, isTensor: (value: unknown) => boolean): boolean {
  const isKnown = WEIGHT_KEYS.includes(at)
  return [...dict].some(([key, value]) => {
    if (typeof key !== 'string') return false
    if (isTensor(value)) return isKnown || key.includes('.')
    return WEIGHT_KEYS.includes(key) && value instanceof Map && [...value.values()].some(isTensor)
  })
}

/** A tensor's name in the model: without the prefixes of torch.compile (_orig_mod.), DataParallel (module.) and FSDP, in any order. */
export function modelName(name: string): string {
  const parts = name.split('.').filter((part, i, all) => i === all.length - 1 || !WRAPPERS.has(part))
  while (parts.length > 1 && parts[0] === 'module') parts.shift()
  return parts.join('.')
}
