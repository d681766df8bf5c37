// docs/errors.md as text. Knows the table only.
import { ERROR_CODES } from './errors.js'

export function errorsPage(): string {
  const rows = Object.entries(ERROR_CODES).map(([code, { meaning, remedy }]) => `| \`${code}\` | ${meaning} | ${remedy} |`)
  return [
    '# Errors',
    '',
    'Every error is a `TetradError` (or one of its subclasses) with a stable `code`, and `what`, `expected`, `actual` and `remedy` as texts.',
    'The command prints them on stderr and exits with 1, or with 130 when Ctrl-C stopped it. This page is made from `src/errors.ts` by `node scripts/errors-doc.mjs`.',
    '',
    '| code | meaning | what helps |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n')
}
