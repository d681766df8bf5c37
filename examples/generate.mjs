// Run with: node examples/generate.mjs   (in a clone after `npm install`, or anywhere that tetrad is installed)
import { fileURLToPath } from 'node:url'
import { Engine } from 'tetrad'

const model = fileURLToPath(new URL('../models/tiny', import.meta.url))
const engine = await Engine.load(model, { ranks: 4 })
try {
  // Iterate for chunks as they come ...
  const generation = engine.generate('The old king', { maxTokens: 60, temperature: 0.7, seed: 7 })
  for await (const { text } of generation) process.stdout.write(text)
  // ... and await for the whole.
  const { usage, timings, seed } = await generation
  console.log(`\n${usage.completionTokens} tokens at ${timings.tokensPerSecond.toFixed(0)} tokens/s, seed ${seed}`)
} finally {
  await engine.close()
}
