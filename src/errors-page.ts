// The text of docs/errors.md, generated from the table of codes.
import { ERROR_CODES } from './errors.js'

export function errorsPage(): string {
  const rows = Object.entries(ERROR_CODES).map(([code, { meaning, remedy }]) => `| \`${code}\` | ${meaning} | ${remedy} |`)
  return [
    '# Errors',
    '',
    'Every error is a `TetradError`, or one of its subclasses. It has a stable `code`, and the texts `what`,',
    '`expected`, `actual` and `remedy`. The command prints them on stderr and exits with status 1, or 130 if',
    'Ctrl-C stopped it. This page is generated from `src/errors.ts` by `node scripts/errors-doc.mjs`.',
    '',
    '| code | meaning | remedy |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n')
}
