// How n units are cut into four shards.
import { SHARDS } from '../protocol.js'

/** Start of shard i's part of n units: floor(i * n / 4). Design rule 2: cut, then pad. */
export function cut(n: number, i: number): number {
  return Math.floor((i * n) / SHARDS)
}

/** Units of n in shard i. */
export function part(n: number, i: number): number {
  return cut(n, i + 1) - cut(n, i)
}
