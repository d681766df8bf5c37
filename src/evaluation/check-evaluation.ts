// Checks of the options that evaluation calls share.
import { LORA } from '../options/adapter-entries.js'
import { checkBoolean, checkInstance, checkNames, checkSignal, invalidOption, isFunction } from '../options/check.js'

/** Options that are callbacks. */
const CALLBACKS = ['onProgress', 'onWindow', 'onItem']

/** names: all options of the call. Throws OptionError. */
export function checkEvaluation(
  call: string,
  options: object,
  names: readonly string[],
): { bos: boolean; lora: string | undefined; signal: AbortSignal | undefined } {
  const o = checkNames(call, options, names)
  for (const name of CALLBACKS) checkInstance(name, o[name], isFunction, 'a function')
  const lora = LORA.check(o.lora, 'lora', { caller: 'api', vocab: Number.POSITIVE_INFINITY })
  return { bos: checkBoolean('bos', o.bos, invalidOption), lora, signal: checkSignal(o.signal) }
}
