// Bounds that several rooms share. A model with larger dimensions is refused before anything is sized by them.
export const LIMITS = { layers: 1024, heads: 1024, width: 1 << 20, vocab: 1 << 22, context: 1 << 24 }
/** Largest timer of Node, in milliseconds. */
export const MAX_TIMER_MS = 2 ** 31 - 1
