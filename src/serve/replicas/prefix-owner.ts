// Which replica a prompt belongs to: prompts that begin alike go to the same one, whose prefix cache has that beginning. Rendezvous hashing:
// when a replica leaves, only its own prompts move.
import { createHash } from 'node:crypto'
import type { Prompt } from '../../engine/prompts.js'
import type { MarkedText } from '../../tokenizer/tokenizer-interface.js'

/** Length of the beginning that is hashed. */
const CHARACTERS = 256
const TOKENS = 64

/** The mark is another one for each request. */
function textOf(prompt: string | MarkedText): string {
  return typeof prompt === 'string' ? prompt : prompt.text.replaceAll(prompt.mark, '')
}

export function prefixOwner<Id extends string | number>(prompt: Prompt, replicas: readonly Id[]): Id {
  const start = Array.isArray(prompt) ? prompt.slice(0, TOKENS).join() : textOf(prompt as string | MarkedText).slice(0, CHARACTERS)
  const score = (replica: Id) => createHash('sha256').update(`${replica}:${start}`).digest().readUInt32LE()
  return replicas.reduce((best, replica) => (score(replica) > score(best) ? replica : best))
}
