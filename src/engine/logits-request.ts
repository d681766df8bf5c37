// One request that wants the logits after every token. Knows the coordinator, not the ranks.
import type { Coordinator } from './coordinator.js'
import { Sequence } from './sequence.js'

/** [T, vocab]. Rejects with what ends the sequence. */
export async function everyLogits(coordinator: Coordinator, prompt: readonly number[], vocab: number): Promise<Float32Array> {
  const result = new Float32Array(prompt.length * vocab)
  await new Promise<void>((resolve, reject) => {
    const sequence = new Sequence({
      prompt,
      maxTokens: 0,
      temperature: 0,
      seed: 0,
      endOfText: new Set(),
      everyLogits: true,
      priority: 0,
      sink: {
        onAdmitted: () => {},
        onToken: () => {},
        onScore: () => {},
        onLogprobs: () => {},
        onLogits: (position, row) => result.set(row, position * vocab),
        onFinish: () => resolve(),
        onError: reject,
      },
    })
    coordinator.submit(sequence)
  })
  return result
}
