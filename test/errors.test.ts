import { readFileSync } from 'node:fs'
import test from 'ava'
import { errorsPage } from '../src/errors-page.js'
import { ROOT } from './support/fixtures.js'

test('docs/errors.md is what the error table says', (t) => {
  t.is(readFileSync(`${ROOT}docs/errors.md`, 'utf8'), errorsPage())
})
