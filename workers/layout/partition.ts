// Which pages of the cache, and which of its columns, a rank holds: pure functions of the partition and the rank's shards.
import { type Partition, type RunPlan, SHARDS } from '../protocol.js'

const ALL_SHARDS: readonly number[] = Array.from({ length: SHARDS }, (_, s) => s)

/** Page i of a sequence is a page whose number is i modulo this. */
export function pageClasses(partition: Partition): number {
  return partition === 'sequence' ? SHARDS : 1
}

/** The shards whose streams and heads a rank caches, of the pages that it holds. */
export function cachedShards(partition: Partition, shards: readonly number[]): readonly number[] {
  return partition === 'sequence' ? ALL_SHARDS : shards
}

/** Pages that the memory of a rank holds. plan.pages is a multiple of pageClasses. */
export function heldPages({ partition, pages }: Pick<RunPlan, 'partition' | 'pages'>, shards: readonly number[]): number {
  return partition === 'sequence' ? (pages / SHARDS) * shards.length : pages
}

/** Where a rank holds a page of the cache; -1: another rank does. */
export function heldPage(partition: Partition, shards: readonly number[], page: number): number {
  if (partition === 'heads') return page
  const at = (page % SHARDS) - (shards[0] as number)
  return at >= 0 && at < shards.length ? Math.floor(page / SHARDS) * shards.length + at : -1
}
