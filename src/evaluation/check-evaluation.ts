// Options that the evaluation calls have in common.

import { OptionError } from '../errors.js'
import { checkBoolean, checkNames } from '../options/check.js'
import { checkInstance } from '../options/engine-options.js'

/** What the evaluation calls have in common. */
export function checkEvaluation(call: string, options: object, names: readonly string[]): { bos: boolean; signal: AbortSignal | undefined } {
  const o = checkNames(call, options, names)
  checkInstance('onProgress', o.onProgress, (v): v is () => void => typeof v === 'function', 'a function')
  return {
    bos: checkBoolean('bos', o.bos, (facts) => new OptionError('OPTION_INVALID', facts)),
    signal: checkInstance('signal', o.signal, (v): v is AbortSignal => v instanceof AbortSignal, 'an AbortSignal'),
  }
}
