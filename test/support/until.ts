import { setTimeout } from 'node:timers/promises'

/** Resolves when the condition holds. A wait in vain ends with ava's timeout of the test. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await setTimeout(25)
}
