// Shapes of attention on tensor cores, for tests that compile its kernels and for those that run them.
import { planTensorAttention, type TensorShape, type TensorTiling } from '../../kernels/gpu/wgsl/tensor-shape.js'

/** Rows of a stream's region in the cache. */
export const CACHED_ROWS = 640

/** Rows that packed queries have room for. */
export const QUERY_ROWS = 16

/** heads, key width, value width, value offset, rope width, streams */
type Widths = readonly [number, number, number, number, number, number]

export const TENSOR_SHAPES: readonly Widths[] = [
  [64, 128, 128, 0, 64, 4],
  [64, 512, 512, 0, 64, 1],
  [16, 128, 128, 128, 0, 1],
  [6, 22, 22, 0, 10, 2],
  [18, 18, 26, 18, 0, 1],
  [48, 128, 64, 0, 32, 1],
  [80, 64, 128, 0, 32, 1],
  [1, 10, 18, 10, 0, 1],
  [24, 152, 152, 0, 44, 1],
]

export interface PlannedShape {
  readonly shape: TensorShape
  readonly planned: { readonly groupHeads: number; readonly tiling: TensorTiling; readonly workgroups: number }
}

export function shapeOf(heads: number, keyWidth: number, valueWidth: number, valueOffset: number, ropeDim: number, streams: number): PlannedShape {
  const four = (n: number) => Math.ceil(n / 4) * 4
  const rowWidth = four(Math.max(keyWidth, valueOffset + valueWidth))
  const widths = { keyWidth, keyOffset: 0, valueOffset, valueWidth, ropeDim, rowWidth, ropeRowWidth: four(ropeDim) }
  const planned = planTensorAttention(widths, heads, 49_152)
  if (!planned) throw new Error('no tiling')
  const { groupHeads } = planned
  const perStream = Math.ceil(heads / groupHeads)
  const groups = Array.from({ length: streams * perStream }, (_, g) => ({
    region: Math.floor(g / perStream) * CACHED_ROWS * rowWidth,
  }))
  const rowHeads = Math.min(heads, groupHeads)
  const slots = groups.flatMap((_, g) =>
    Array.from({ length: rowHeads }, (_, i) => {
      const head = (g % perStream) * groupHeads + i
      return head < heads ? { query: (Math.floor(g / perStream) * heads + head) * four(keyWidth), rope: head * four(ropeDim) } : undefined
    }),
  )
  const queries = { queryWidth: streams * heads * four(keyWidth), ropeWidth: heads * four(ropeDim), ropeRegion: streams * CACHED_ROWS * rowWidth }
  const shape: TensorShape = {
    ...widths,
    ...queries,
    groups,
    groupHeads,
    rowHeads,
    queryRows: QUERY_ROWS,
    slots,
    scale: 0.1,
    parts: planned.workgroups,
  }
  return { shape, planned }
}
