// Stop texts that are control tokens: those leave no text, so a search in the text would never find them.
import { invalidOption } from '../options/check.js'
import type { Tokenizer } from '../tokenizer/tokenizer-interface.js'

/** A stop text that begins with a control token stops at that token's id. Throws OptionError for one that contains a control token further on. */
export function withControlStops<P extends { readonly stop: readonly string[]; readonly stopTokenIds: readonly number[] }>(
  params: P,
  tokenizer: Tokenizer,
): P {
  const ids: number[] = []
  const texts = params.stop.filter((stop) => {
    const control = tokenizer.controlTokens.find((token) => token !== '' && stop.includes(token))
    if (control === undefined) return true
    const first = tokenizer.controlTokens.find((token) => token !== '' && stop.startsWith(token))
    if (first === undefined) {
      throw invalidOption({
        what: 'a stop text contains a control token after other text, so it could never be found',
        expected: `a text without ${JSON.stringify(control)}, or one that begins with it`,
        actual: JSON.stringify(stop),
        remedy: `Pass ${JSON.stringify(control)} alone.`,
        option: 'stop',
      })
    }
    ids.push(tokenizer.controlId(first) as number)
    return false
  })
  return ids.length === 0 ? params : { ...params, stop: texts, stopTokenIds: [...params.stopTokenIds, ...ids] }
}
