import test from 'ava'
import fc from 'fast-check'
import { StopStrings } from '../../src/engine/stop-strings.js'

/** Feeds pieces until a stop string comes. */
function run(pieces: readonly string[], stops: readonly string[]) {
  const matcher = new StopStrings(stops)
  let shown = ''
  for (const piece of pieces) {
    const { text, stop } = matcher.push(piece)
    shown += text
    if (stop !== undefined) return { shown, stop }
  }
  return { shown: shown + matcher.flush(), stop: undefined }
}

test('however a text is cut, what is shown ends before the first stop string to be complete, and nothing else is lost', (t) => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 40 })
  const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 })
  const property = fc.property(fc.array(text, { maxLength: 12 }), fc.array(stop, { minLength: 1, maxLength: 3 }), (pieces, stops) => {
    const whole = pieces.join('')
    const { shown, stop } = run(pieces, stops)
    if (stop === undefined) return shown === whole && stops.every((s) => !whole.includes(s))
    // The text begins with what was shown and the stop string, and no stop string is complete before.
    return whole.startsWith(shown + stop) && stops.every((s) => !shown.includes(s))
  })
  t.notThrows(() => fc.assert(property, { numRuns: 3000, seed: 1 }))
})

test('a beginning of a stop string is held back until it is sure', (t) => {
  const matcher = new StopStrings(['END'])
  t.deepEqual(matcher.push('the E'), { text: 'the ', stop: undefined })
  t.deepEqual(matcher.push('N'), { text: '', stop: undefined })
  t.deepEqual(matcher.push('x'), { text: 'ENx', stop: undefined })
  t.deepEqual(matcher.push('EN'), { text: '', stop: undefined })
  t.deepEqual(matcher.push('D and more'), { text: '', stop: 'END' })
})
