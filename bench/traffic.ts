// Prompts and models that benchmarks of the engine share.
import { fileURLToPath } from 'node:url'
import { assetUrl } from '../src/assets.js'

export const TINY = fileURLToPath(assetUrl('models/tiny'))

/** Prompts of random tokens, the same for the same seed: a linear congruential generator. */
export function prompts(seed: number, vocab = 4096): { random: () => number; prompt: (length: number) => number[] } {
  let state = seed >>> 0
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 4294967296
  }
  return { random, prompt: (length) => Array.from({ length }, () => Math.floor(random() * vocab)) }
}
