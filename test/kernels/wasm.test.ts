import test from 'ava'
import { bestSimdLevel } from '../../kernels/wasm/simd-level.js'
import { conformance } from './conformance.js'

conformance(test, 'wasm', 2e-5, 'simd128')

// The compiled tests lie beside the compiled kernels.
if (bestSimdLevel(new URL('../../kernels/wasm/', import.meta.url)) === 'relaxed') conformance(test, 'wasm', 2e-5, 'relaxed')
else test.skip('relaxed kernels: this engine or processor has no fused relaxed SIMD', () => {})
