// How many prompt rows a step gets, by how long steps took.
import test from 'ava'
import { fixedPace, MeasuredPace } from '../../src/engine/scheduling/prompt-pace.js'

test('a pace that is given stays, whatever steps take', (t) => {
  const pace = fixedPace(64)
  pace.note(64, 10_000)
  t.is(pace.rows(true), 64)
  t.is(pace.rows(false), 64)
})

test('a measured pace fills 250 ms of a step of prompts, and 60 ms beside sequences that decode', (t) => {
  const pace = new MeasuredPace(4096)
  t.is(pace.rows(false), 256)
  pace.note(256, 64)
  t.is(pace.rows(false), 1000)
  t.is(pace.rows(true), 240)
  // A longer context: rows take longer.
  pace.note(1000, 500)
  t.is(pace.rows(false), 500)
  // Steps of a few rows say little, and a clock that stood says nothing.
  pace.note(3, 100)
  pace.note(500, 0)
  t.is(pace.rows(false), 500)
})

test('a measured pace never exceeds its limit, and gives at least one row', (t) => {
  const pace = new MeasuredPace(16)
  t.is(pace.rows(false), 16)
  pace.note(16, 1)
  t.is(pace.rows(false), 16)
  pace.note(16, 1e6)
  t.is(pace.rows(true), 1)
})

test('after a step that took far too long, the pace recovers, though steps have few rows then', (t) => {
  const pace = new MeasuredPace(1024)
  pace.note(256, 60_000)
  t.is(pace.rows(false), 1)
  pace.note(1, 5)
  t.is(pace.rows(false), 50)
  pace.note(50, 6)
  t.is(pace.rows(false), 1024)
})
