// Options that the evaluation calls have in common.

import { checkBoolean, checkInstance, checkNames, checkSignal, invalidOption, isFunction } from '../options/check.js'

/** What the evaluation calls have in common. */
export function checkEvaluation(call: string, options: object, names: readonly string[]): { bos: boolean; signal: AbortSignal | undefined } {
  const o = checkNames(call, options, names)
  checkInstance('onProgress', o.onProgress, isFunction, 'a function')
  return {
    bos: checkBoolean('bos', o.bos, invalidOption),
    signal: checkSignal(o.signal),
  }
}
