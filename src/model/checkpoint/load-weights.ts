// Drives the loader pool over a shard plan: row blocks in parallel, straight into the memories, with progress.
import { availableParallelism } from 'node:os'
import { Piscina } from 'piscina'
import type { SharedMemory } from '../../../kernels/backend.js'
import { bufferOf, prepareBackend } from '../../../kernels/open-backend.js'
import { TILE_ROWS } from '../../../kernels/packing.js'
import { WEIGHT_FORMATS } from '../../../kernels/weight-formats.js'
import type { LoadResult, LoadTask, MemoryName } from '../../../workers/protocol.js'
import { assetUrl } from '../../assets.js'
import { endingPool } from '../../engine/ranks/pool-threads.js'
import { CheckpointError, TetradError } from '../../errors.js'
import type { LoadProgress } from '../../options/public-types.js'
import type { DirectPlan, PackedPlans } from './packed-checkpoint.js'
import type { TensorPlan } from './planner.js'
import { STORED_BYTES } from './tensor-source.js'

/** A block is as many whole rows as fit. */
const BLOCK_BYTES = 4 << 20
/** Of a packed matrix: it is checked and copied while it is in the processor's cache. Reading into place took more system time. */
const DIRECT_BYTES = 1 << 20

export interface Memories {
  readonly shards: readonly SharedMemory[]
  readonly ranks: readonly SharedMemory[]
}

/**
 * Fills the memories. Mutates them only; holds two blocks per loader thread at most.
 * Throws CheckpointError TENSOR_NON_FINITE or CHECKPOINT_INVALID, TetradError LOAD_ABORTED.
 */
export async function loadWeights(
  plans: PackedPlans,
  memories: Memories,
  onProgress: ((progress: LoadProgress) => void) | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const tasks = [...plans.tensors.flatMap((plan) => blocks(plan, memories)), ...plans.direct.flatMap((plan) => chunks(plan, memories))]
  const packedBytes = plans.direct.reduce((sum, { matrix }) => sum + matrix.bytes, 0)
  const totalBytes = plans.tensors.reduce((sum, plan) => sum + plan.rows * plan.cols * STORED_BYTES[plan.source.dtype], packedBytes)
  let loadedBytes = 0
  const threads = Math.min(4, availableParallelism())
  const pool = new Piscina({
    filename: assetUrl('dist/workers/loading/loader.js').href,
    minThreads: threads,
    maxThreads: threads,
    workerData: { kernels: prepareBackend('wasm', 'simd128', assetUrl('dist/kernels/wasm/')) },
  })
  const end = endingPool(pool)
  // A thread that fails between tasks; unheard, it would end the process. A task that fails rejects below.
  pool.on('error', () => {})
  const stop = () => void end()
  signal?.addEventListener('abort', stop, { once: true })
  try {
    await Promise.all(
      tasks.map(async (task) => {
        const result = (await pool.run(task)) as LoadResult
        if ('problem' in result) throw problem(task, result)
        loadedBytes += result.bytes
        onProgress?.({ loadedBytes, totalBytes })
      }),
    )
  } catch (error) {
    if (signal?.aborted) throw new TetradError('LOAD_ABORTED', { what: 'loading was stopped', remedy: 'Load again when it is wanted.', cause: error })
    if (error instanceof TetradError) throw error
    throw new CheckpointError('CHECKPOINT_INVALID', {
      what: 'a weight file could not be read while loading',
      actual: error instanceof Error ? error.message : String(error),
      remedy: 'Check that the files are still there and readable.',
      cause: error,
    })
  } finally {
    signal?.removeEventListener('abort', stop)
    await end()
  }
}

function blocks(plan: TensorPlan, memories: Memories): LoadTask[] {
  const { source } = plan
  const rowBytes = plan.cols * STORED_BYTES[source.dtype]
  const each = Math.max(1, Math.floor(BLOCK_BYTES / rowBytes))
  const starts = [0]
  for (let next = each; next < plan.rows; ) {
    while (next < plan.rows && !mayCut(plan, next)) next++
    if (next < plan.rows) starts.push(next)
    next += each
  }
  const buffer = (memory: MemoryName) => memoryOf(memory, memories)
  return starts.map((firstRow, i) => {
    const rows = (starts[i + 1] ?? plan.rows) - firstRow
    const touched = plan.pieces.filter((p) => p.row < firstRow + rows && p.row + p.rows > firstRow)
    return {
      tensor: source.name,
      path: source.path,
      file: source.file,
      dtype: source.dtype,
      offset: source.offset,
      strided: source.strides ? { shape: source.stridedShape ?? source.shape, strides: source.strides } : undefined,
      firstRow,
      rows,
      cols: plan.cols,
      pieces: touched.map((p) => ({ ...p, buffer: buffer(p.memory) })),
      vectors: plan.vectors.map((v) => ({ ...v, buffer: buffer(v.memory) })),
      direct: undefined,
    }
  })
}

function memoryOf(memory: MemoryName, memories: Memories): SharedArrayBuffer {
  return bufferOf((memory.kind === 'shard' ? memories.shards : memories.ranks)[memory.index] as SharedMemory)
}

/** A packed matrix in parts of whole blocks. */
function chunks({ source, memory, matrix }: DirectPlan, memories: Memories): LoadTask[] {
  const { blockBytes } = WEIGHT_FORMATS[matrix.format]
  const chunkBytes = Math.floor(DIRECT_BYTES / blockBytes) * blockBytes
  return Array.from({ length: Math.ceil(matrix.bytes / chunkBytes) }, (_, i) => ({
    tensor: source.name,
    path: source.path,
    file: source.file,
    dtype: 'u8',
    offset: source.offset + i * chunkBytes,
    strided: undefined,
    firstRow: 0,
    rows: 1,
    cols: Math.min(chunkBytes, matrix.bytes - i * chunkBytes),
    pieces: [],
    vectors: [],
    direct: { buffer: memoryOf(memory, memories), ptr: matrix.ptr + i * chunkBytes, format: matrix.format },
  }))
}

/**
 * Blocks end where tiles do, so that whole tiles are packed at once. Source rows that become packed columns stay together by blocks of
 * columns, which may have one scale (int8).
 */
function mayCut(plan: TensorPlan, row: number): boolean {
  return plan.pieces.every((p) => {
    if (row <= p.row || row >= p.row + p.rows) return true
    if (p.transposed) return (row - p.row) % WEIGHT_FORMATS[p.format].blockColumns === 0
    return (row - p.row + p.packedRow) % TILE_ROWS === 0
  })
}

function problem(task: LoadTask, result: Extract<LoadResult, { problem: string }>): CheckpointError {
  if (result.problem === 'non-finite') {
    return new CheckpointError('TENSOR_NON_FINITE', {
      what: `${task.path}: ${result.message} is not finite`,
      expected: 'finite weights',
      actual: 'NaN or infinity',
      remedy: 'The training or the conversion went wrong: use another checkpoint.',
    })
  }
  if (result.problem === 'too-large') {
    return new CheckpointError('TENSOR_NON_FINITE', {
      what: `${task.path}: ${result.message} is too large for a float16 scale, which would be infinite`,
      expected: `magnitudes up to ${WEIGHT_FORMATS.int4.largest}, or another format of weights`,
      remedy: "Choose weights: 'int8'.",
    })
  }
  if (result.problem === 'changed') {
    return new CheckpointError('CHECKPOINT_CHANGED', {
      what: `${task.path}: ${result.message}`,
      expected: 'files that stay as they are while they are loaded',
      remedy: 'Load again when the files are complete.',
    })
  }
  return new CheckpointError('CHECKPOINT_INVALID', {
    what: `${task.path}: ${result.message}`,
    expected: 'the whole tensor',
    remedy: 'Fetch the file again.',
  })
}
