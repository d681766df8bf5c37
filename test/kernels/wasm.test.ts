import test from 'ava'
import { conformance } from './conformance.js'

conformance(test, 'wasm', 2e-5)
