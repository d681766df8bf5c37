// The most likely token as a device finds it, emulated, beside the kernel of the CPU.
import test from 'ava'
import { ARGMAX_SLICES, ARGMAX_WORDS, argmaxOf, argmaxRows } from '../../kernels/gpu/wgsl/argmax.js'
import { randomNumbers } from '../support/fixtures.js'
import { TestBackend } from '../support/kernel-backend.js'
import { emulate } from '../support/wgsl-emulator.js'

const VOCAB = 1003

test('the most likely token: the lowest id of the largest logit, and -1 for NaN and infinite ones, as on the CPU', (t) => {
  const next = randomNumbers(3)
  const random = () => Float32Array.from({ length: VOCAB }, () => next() * 20 - 10)
  const withValues = (row: Float32Array, ...values: readonly (readonly [id: number, value: number])[]) => {
    for (const [id, value] of values) row[id] = value
    return row
  }
  const negative = Float32Array.from({ length: VOCAB }, () => -1 - next())
  const rows: Record<string, Float32Array> = {
    'first id': withValues(random(), [0, 11]),
    'last id': withValues(random(), [VOCAB - 1, 11]),
    'equal ones in several parts': withValues(random(), [701, 11], [66, 11], [65, 11], [902, 11]),
    'zeros of both signs': withValues(negative.slice(), [500, -0], [501, 0], [900, 0]),
    'negative ones': negative,
    'minus infinity beside others': withValues(random(), [7, Number.NEGATIVE_INFINITY]),
    'minus infinity alone': new Float32Array(VOCAB).fill(Number.NEGATIVE_INFINITY),
    infinity: withValues(random(), [30, Number.POSITIVE_INFINITY]),
    NaN: withValues(random(), [999, Number.NaN]),
    'equal everywhere': new Float32Array(VOCAB).fill(3),
  }
  const names = Object.keys(rows)
  const all = new Float32Array(names.length * VOCAB)
  for (const [i, name] of names.entries()) all.set(rows[name] as Float32Array, i * VOCAB)
  const results = new Uint32Array(names.length * ARGMAX_SLICES * ARGMAX_WORDS)
  emulate(argmaxRows(VOCAB)).run({ 0: new Uint32Array(all.buffer), 1: results }, [ARGMAX_SLICES, names.length, 1])

  const backend = new TestBackend('wasm')
  const logits = backend.rows(1, VOCAB)
  for (const [i, name] of names.entries()) {
    logits.row(0).set(rows[name] as Float32Array)
    t.is(argmaxOf(results, i), backend.kernels.argmax(logits, 0, VOCAB), name)
  }
  t.is(argmaxOf(results, 2), 65)
  t.is(argmaxOf(results, 3), 500)
})
