// Options of Engine.load that errors name, as flags of tetrad serve: clients and operators of a server know those.
import { flagName } from '../options/caller.js'
import { ENGINE_OPTIONS } from '../options/engine-options.js'

/** A word in camelCase: every option has at least one capital letter, or is no name in a sentence (`cache`, `ranks`). */
const NAME = /\b[a-z]+[A-Z][A-Za-z]*\b/g

/** The message with every option's name replaced by its flag. */
export function inServerTerms(message: string): string {
  return message.replace(NAME, (word) => (Object.hasOwn(ENGINE_OPTIONS, word) ? flagName(word) : word))
}
