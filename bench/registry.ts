// The benchmarks, in the order of the report.
import { attention } from './attention.js'
import { cluster } from './cluster.js'
import { collectives } from './collectives.js'
import { gpuThroughput } from './gpu-throughput.js'
import type { Benchmark } from './harness/benchmark.js'
import { load } from './load.js'
import { peers } from './peers.js'
import { prediction } from './prediction.js'
import { quantization } from './quantization.js'
import { recovery } from './recovery.js'
import { scaling } from './scaling.js'
import { serving } from './serving.js'
import { throughput } from './throughput.js'
import { ttft } from './ttft.js'

export const BENCHMARKS: readonly Benchmark[] = [
  scaling,
  attention,
  collectives,
  prediction,
  peers,
  throughput,
  gpuThroughput,
  ttft,
  load,
  recovery,
  quantization,
  serving,
  cluster,
]
