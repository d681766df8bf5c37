import test from 'ava'
import fc from 'fast-check'
import { TokenCounts } from '../../workers/sampling/token-counts.js'

/** Counts of a whole sequence, made anew. */
function counted(tokens: readonly number[], promptLength: number): Map<number, { all: number; output: number }> {
  const counts = new Map<number, { all: number; output: number }>()
  for (const [p, id] of tokens.entries()) {
    const { all, output } = counts.get(id) ?? { all: 0, output: 0 }
    counts.set(id, { all: all + 1, output: output + (p >= promptLength ? 1 : 0) })
  }
  return counts
}

const sorted = (counts: ReadonlyMap<number, { all: number; output: number }>) => [...counts].sort(([a], [b]) => a - b)

test('counts kept from row to row are those of the whole sequence, also after wrong drafts, a change of slots, and another sequence in the slot', (t) => {
  const step = fc.record({
    tokens: fc.array(fc.nat({ max: 4 }), { minLength: 1, maxLength: 5 }),
    right: fc.nat({ max: 5 }),
    moved: fc.boolean(),
  })
  const sequence = fc.record({ prompt: fc.array(fc.nat({ max: 4 }), { minLength: 1, maxLength: 8 }), steps: fc.array(step, { maxLength: 12 }) })
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.array(sequence, { minLength: 1, maxLength: 4 }), (sequences) => {
        const counts = new TokenCounts()
        let serials = 0
        for (const { prompt, steps } of sequences) {
          let serial = ++serials
          const history = [...prompt]
          const row = (last: number, newest: number) => {
            const known = (p: number) => history[p] as number
            counts.advance(serial, prompt.length, last, newest, known)
            const expected = counted([...history.slice(0, last), newest], prompt.length)
            if (JSON.stringify(sorted(counts.counts)) !== JSON.stringify(sorted(expected))) throw new Error(`other counts at ${last}`)
          }
          row(prompt.length - 1, prompt.at(-1) as number)
          for (const { tokens, right, moved } of steps) {
            // Preempted, and given another slot: its serial is new, and its tokens are counted at once.
            if (moved) serial = ++serials
            history.push(tokens[0] as number)
            row(history.length - 1, tokens[0] as number)
            const drafts = tokens.slice(1)
            const before = history.length
            for (const draft of drafts) {
              history.push(draft)
              row(history.length - 1, draft)
            }
            // The drafts after the first wrong one are replaced by what comes.
            history.length = before + Math.min(right, drafts.length)
          }
        }
      }),
    ),
  )
})
