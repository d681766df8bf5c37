// How heads are cut over shards and become attention units, and checks of dimensions that several families share.
import { cut } from '../../../workers/layout/cuts.js'
import { type AttentionShape, type AttentionUnit, SHARDS, type StreamShape } from '../../../workers/protocol.js'
import { invalidConfig } from '../invalid-config.js'
import type { Dimension, ModelConfig } from '../model-config.js'

/** A dimension that the family needs. Throws CONFIG_INVALID by the name that config.json has for it. */
export function need(config: ModelConfig, name: Dimension): number {
  const value = config.dims[name]
  if (value !== undefined) return value
  throw invalidConfig(`${keyOf(config, name)} is missing`, 'a positive integer', 'nothing')
}

/** config.json's name of a dimension. */
export function keyOf(config: ModelConfig, name: Dimension): string {
  return config.decoder.config.dims[name] ?? name
}

/** The width of a head, of which `multiple`-ths are rotated. */
export function headDimOf(config: ModelConfig, multiple: number): number {
  const width = need(config, 'headDim')
  if (width % multiple !== 0)
    throw invalidConfig(`${keyOf(config, 'headDim')} cannot be rotated in halves`, `a multiple of ${multiple}`, String(width))
  return width
}

/** First and end of every shard's part of n. */
export function cutsOf(n: number): number[] {
  return Array.from({ length: SHARDS + 1 }, (_, i) => cut(n, i))
}

export function eachShard<T>(of: (shard: number) => T): T[] {
  return Array.from({ length: SHARDS }, (_, s) => of(s))
}

/** A unit as a list, empty without heads. */
export function unit(stream: number, headStart: number, headEnd: number): AttentionUnit[] {
  return headEnd > headStart ? [{ stream, headStart, headEnd }] : []
}

/** Heads per key and value head: as config.json says, or by the rows that the tensor of keys has. perHead: rows of one such head. */
export function groupSizeOf(config: ModelConfig, rows: number | undefined, perHead: number): number {
  const { heads } = config
  const { groupSize, kvHeads } = config.dims
  if (groupSize !== undefined) return groupSize
  if (kvHeads !== undefined) {
    if (heads % kvHeads === 0) return heads / kvHeads
    throw invalidConfig(
      `${config.decoder.config.heads} cannot be cut into groups`,
      `a multiple of ${keyOf(config, 'kvHeads')} ${kvHeads}`,
      String(heads),
    )
  }
  if (rows !== undefined && rows >= perHead && rows % perHead === 0 && heads % (rows / perHead) === 0) return heads / (rows / perHead)
  throw invalidConfig(`${keyOf(config, 'groupSize')} is missing`, 'the number of heads that share a key and value head', 'nothing')
}

/** Attention over key and value heads that are cached as they are, each by `groupSize` query heads. */
export function overKvHeads(
  config: ModelConfig,
  groupSize: number,
  head: {
    readonly nopeDim: number
    readonly ropeDim: number
    readonly valueDim: number
    readonly stream: StreamShape
    readonly sharedRopeDim: number
    readonly headNormed?: boolean
    readonly biased?: boolean
  },
): AttentionShape {
  const { heads } = config
  if (heads % groupSize !== 0)
    throw invalidConfig(
      `${config.decoder.config.heads} cannot be cut into groups`,
      `a multiple of ${keyOf(config, 'groupSize')} ${groupSize}`,
      String(heads),
    )
  const kvHeads = heads / groupSize
  // Whole KV heads per shard where there are enough; else the heads are cut and shards share KV heads.
  const headCuts = kvHeads >= SHARDS ? cutsOf(kvHeads).map((c) => c * groupSize) : cutsOf(heads)
  const units = eachShard((s) => {
    const [start = 0, end = 0] = headCuts.slice(s, s + 2)
    const first = Math.floor(start / groupSize)
    return Array.from({ length: Math.ceil(end / groupSize) - first }, (_, i) =>
      unit(first + i, Math.max(start, (first + i) * groupSize), Math.min(end, (first + i + 1) * groupSize)),
    ).flat()
  })
  return {
    heads,
    queryRank: 0,
    queryNormed: false,
    headNormed: false,
    biased: false,
    ...head,
    streams: kvHeads,
    absorbed: false,
    factors: undefined,
    gated: false,
    units,
    headCuts,
    scale: (head.nopeDim + head.ropeDim) ** -0.5,
    outputFactor: 1,
    normEps: config.normEps,
  }
}
