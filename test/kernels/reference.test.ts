import test from 'ava'
import { conformance } from './conformance.js'

conformance(test, 'reference', 1e-12)
