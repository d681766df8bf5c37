// Writes docs/errors.md from the built error table, or with --check fails if it is out of date.
import { readFileSync, writeFileSync } from 'node:fs'
import { errorsPage } from '../dist/src/errors-page.js'

const path = 'docs/errors.md'
if (process.argv.includes('--check')) {
  if (readFileSync(path, 'utf8') !== errorsPage()) throw new Error(`${path} is out of date: run node scripts/errors-doc.mjs`)
} else {
  writeFileSync(path, errorsPage())
}
