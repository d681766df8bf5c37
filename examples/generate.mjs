// Run with: node examples/generate.mjs   (in a clone after `npm install`, or anywhere that tetrad is installed)
import { EMBEDDED_MODEL, Engine } from 'tetrad'

const engine = await Engine.load(EMBEDDED_MODEL, { ranks: 4 })
try {
  // Iterate for chunks as they come ...
  const generation = engine.generate('The old king', { maxTokens: 60, temperature: 0.7, seed: 7 })
  for await (const { text } of generation) process.stdout.write(text)
  // ... and await for the completion.
  const { usage, timings, seed } = await generation
  console.log(`\n${usage.completionTokens} tokens at ${timings.tokensPerSecond.toFixed(0)} tokens/s, seed ${seed}`)
  // Several prompts run in one batch, and their completions have the same bits as alone.
  for (const { text } of await engine.generateMany(['The wolf', 'The sea'], { maxTokens: 12 })) console.log(text)
  // A conversation, by the model's chat template if it has one.
  const { text } = await engine.chat([{ role: 'user', content: 'Tell me of the sea.' }], { maxTokens: 40 })
  console.log(text.trim())
} finally {
  await engine.close()
}
