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

test('a measured pace never exceeds its limit, nor goes below 32 rows where the limit allows them', (t) => {
  const few = new MeasuredPace(16)
  for (const ms of [1, 1e6]) {
    t.is(few.rows(false), 16)
    few.note(16, ms)
    t.is(few.rows(true), 16)
  }
  const slow = new MeasuredPace(1024)
  slow.note(256, 10_000)
  t.is(slow.rows(true), 32)
  t.is(slow.rows(false), 32)
})

test('after a step that took far too long, the pace recovers, though steps have few rows then', (t) => {
  const pace = new MeasuredPace(1024)
  pace.note(256, 60_000)
  t.is(pace.rows(false), 32)
  pace.note(32, 6)
  t.is(pace.rows(false), 1024)
  // What a few rows take says nothing against it.
  pace.note(3, 6)
  t.is(pace.rows(false), 1024)
})
