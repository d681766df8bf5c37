// The benchmarks, in the order of the report.
import type { Benchmark } from './harness/benchmark.js'
import { scaling } from './scaling.js'

export const BENCHMARKS: readonly Benchmark[] = [scaling]
