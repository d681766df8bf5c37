// Tiers of tests. `npm test` runs *.test.ts without the tests declared by `full`; `npm run test:full` runs these and *.full.test.ts too;
// `npm run test:soak` runs *.soak.test.ts. A file that is run by name runs all of its tests.
import test, { type ExecutionContext } from 'ava'

type Declare = (title: string, implementation: (t: ExecutionContext) => void | Promise<void>) => void

/** Whether tests of the full tier are declared. */
export const inFull = process.env.TETRAD_TEST_TIER !== 'quick'

/** Declares a test that `npm test` leaves out. */
export const full: Declare = inFull ? test : () => {}

/** Where a table of tests has some rows of the quick tier: `test` for these, `full` for the others. */
export function quickIf(isQuick: boolean): Declare {
  return isQuick ? test : full
}
