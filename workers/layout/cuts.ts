// Cuts n units into four shards.
import { SHARDS } from '../protocol.js'

/** Start of shard i's part of n units: floor(i * n / 4). Cut, then pad (docs/determinism.md, rule 2). */
export function cut(n: number, i: number): number {
  return Math.floor((i * n) / SHARDS)
}

/** Units of n in shard i. */
export function part(n: number, i: number): number {
  return cut(n, i + 1) - cut(n, i)
}
