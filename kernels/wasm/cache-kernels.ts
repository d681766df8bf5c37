// Calls of the kernels that read and write cached rows, for each format that the CPU has. All numbers but the page's are those of a
// unit's geometry, which is made at load.
import { type CpuCacheFormat, mostRows } from '../cache-format.js'

type CacheKernels = Pick<CpuCacheFormat, 'write' | 'loadQueries' | 'dot' | 'attend'>

export const F32_CACHE = floatCache('cacheRowF32', 'dotF32', 'attendF32', 'attendFactorsF32', 4)
export const BF16_CACHE = floatCache('cacheRowBf16', 'dotBf16', 'attendBf16', 'attendFactorsBf16', 2)

export const INT8_CACHE: CacheKernels = {
  write: (k, dst, src, row) => k.cacheRowInt8(dst, src, row.width, row.paddedWidth, row.sumWidth, row.split),
  loadQueries: 'quantizeHeads',
  dot: (k, query, page, row, out, lanes, tokens) => k.dotInt8(query, page, row.bytes, row.scaleAt, Math.ceil(row.keyWidth / 4), out, lanes, tokens),
  attend: (k, unit, page, shared, z, tokens) => {
    const { row, valueWidth } = unit
    k.attendInt8(
      unit.query,
      page,
      row.keyWidth,
      page + unit.valueOffset,
      valueWidth,
      row.bytes,
      row.scaleAt,
      row.valueScaleAt,
      shared === 0 ? 0 : shared + unit.sharedOffset * 4,
      unit.sharedLanes * 4,
      unit.sharedRowHeads,
      unit.scale,
      unit.values,
      unit.scores,
      unit.state,
      z,
      valueWidth * 4,
      unit.heads,
      unit.lanes,
      tokens,
      mostRows(unit, tokens),
      unit.rowHeads,
    )
  },
}

function floatCache(
  write: 'cacheRowF32' | 'cacheRowBf16',
  dot: 'dotF32' | 'dotBf16',
  attend: 'attendF32' | 'attendBf16',
  attendFactors: 'attendFactorsF32' | 'attendFactorsBf16',
  scalarBytes: number,
): CacheKernels {
  return {
    write: (k, dst, src, row) => k[write](dst, src, row.width, row.paddedWidth),
    loadQueries: 'transposeHeads',
    dot: (k, query, page, row, out, lanes, tokens) => k[dot](query, page, row.bytes, row.keyWidth, out, lanes, tokens),
    attend: (k, unit, page, shared, z, tokens) => {
      const { row, factors, valueWidth } = unit
      const value = page + unit.valueOffset * scalarBytes
      if (factors) {
        k[attendFactors](
          unit.query,
          page,
          row.keyWidth,
          value,
          valueWidth,
          factors.valueStride * scalarBytes,
          row.bytes,
          factors.rank,
          shared,
          factors.row.bytes,
          unit.scale,
          factors.dots,
          unit.scores,
          unit.state,
          z,
          valueWidth * 4,
          unit.heads,
          unit.lanes,
          tokens,
        )
        return
      }
      k[attend](
        unit.query,
        page,
        row.keyWidth,
        value,
        valueWidth,
        row.bytes,
        shared === 0 ? 0 : shared + unit.sharedOffset * 4,
        unit.sharedLanes * 4,
        unit.sharedRowHeads,
        unit.scale,
        unit.scores,
        unit.state,
        z,
        valueWidth * 4,
        unit.heads,
        unit.lanes,
        tokens,
        mostRows(unit, tokens),
        unit.rowHeads,
      )
    },
  }
}
