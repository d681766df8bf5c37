// Checks a caller's values against a table of entries.
import { type Caller, spelled } from './caller.js'
import { checkNames } from './check.js'
import type { Checked, Table } from './entry.js'

/**
 * Values by their API names, checked, with defaults. `what`: the call, for messages about unknown names; `vocab`: for token ids.
 * Throws OptionError OPTION_UNKNOWN or OPTION_INVALID, in the caller's spelling.
 */
export function checkTable<T extends Table>(table: T, what: string, values: unknown, caller: Caller, vocab = Number.POSITIVE_INFINITY): Checked<T> {
  const given = checkNames(what, values, Object.keys(table))
  const context = { caller, vocab }
  return Object.freeze(
    Object.fromEntries(Object.entries(table).map(([name, entry]) => [name, entry.check(given[name], spelled(name, caller), context)])),
  ) as Checked<T>
}
