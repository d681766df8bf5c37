// Which replica a prompt belongs to: prompts that begin alike go to the same one, whose prefix cache has that beginning. Rendezvous hashing:
// when a replica leaves, only its own prompts move.
import { createHash } from 'node:crypto'
import type { Prompt } from '../../engine/prompts.js'

/** Length of the beginning that is hashed. */
const CHARACTERS = 256
const TOKENS = 64

export function prefixOwner<Id extends string | number>(prompt: Prompt, replicas: readonly Id[]): Id {
  const start = typeof prompt === 'string' ? prompt.slice(0, CHARACTERS) : prompt.slice(0, TOKENS).join()
  const score = (replica: Id) => createHash('sha256').update(`${replica}:${start}`).digest().readUInt32LE()
  return replicas.reduce((best, replica) => (score(replica) > score(best) ? replica : best))
}
