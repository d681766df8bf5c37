// Checks of the options that evaluation calls share.
import { checkBoolean, checkInstance, checkNames, checkSignal, invalidOption, isFunction } from '../options/check.js'

/** Options that are callbacks. */
const CALLBACKS = ['onProgress', 'onWindow', 'onItem']

/** names: all options of the call. Throws OptionError. */
export function checkEvaluation(call: string, options: object, names: readonly string[]): { bos: boolean; signal: AbortSignal | undefined } {
  const o = checkNames(call, options, names)
  for (const name of CALLBACKS) checkInstance(name, o[name], isFunction, 'a function')
  return { bos: checkBoolean('bos', o.bos, invalidOption), signal: checkSignal(o.signal) }
}
