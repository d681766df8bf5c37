// JSON as other programs write it: with a byte order mark (Windows editors), and with NaN and Infinity (Python's json.dumps).

/** Stands for a number that JSON does not have, until the reviver sees it. */
const KEY = '\u0000number'

/**
 * Parses JSON. A byte order mark is skipped; NaN, Infinity and -Infinity become the numbers that they name, so that the check of a
 * field that is used refuses them.
 * @throws SyntaxError as JSON.parse does
 */
export function parseJson(text: string): unknown {
  const plain = withoutByteOrderMark(text)
  try {
    return JSON.parse(plain)
  } catch (error) {
    if (!/NaN|Infinity/.test(plain)) throw error
    return parseWithNumbers(plain, error)
  }
}

export function withoutByteOrderMark(text: string): string {
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text
}

function parseWithNumbers(text: string, first: unknown): unknown {
  // Strings are matched first, so that words inside them stay.
  const replaced = text.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g, (match) =>
    match.startsWith('"') ? match : JSON.stringify({ [KEY]: match }),
  )
  try {
    return JSON.parse(replaced, (_key, value: unknown) =>
      typeof value === 'object' && value !== null && Object.hasOwn(value, KEY) ? Number((value as Record<string, unknown>)[KEY]) : value,
    )
  } catch {
    throw first
  }
}
