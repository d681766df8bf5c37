// Larger dimensions than any real model's are refused before anything is sized by them.
export const LIMITS = { layers: 1024, heads: 1024, width: 1 << 20, vocab: 1 << 22, context: 1 << 24 }
