// What a draft model gains: models/tiny drafts for itself with further layers that change nothing, so that nearly all guesses are right.
// Tokens for a second of the process's CPU time, and tokens of a step, in turn without and with it.
// Usage: node dist/bench/diagnostics/draft.js [layers] [rounds] [ranks]
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Engine } from '../../src/index.js'
import { deeperModel } from '../deeper-model.js'
import { inTurn, machine, spread, table, temporaryFolder } from '../measure.js'

const [layers = 48, rounds = 5, ranks = 1] = process.argv.slice(2).map(Number)
const TINY = 'models/tiny'
const TOKENS = 64
const dir = join(temporaryFolder(), 'deeper')
mkdirSync(dir)
await deeperModel(TINY, dir, layers)

const prompt = Array.from({ length: 32 }, (_, i) => (i * 37) % 4096)
const options = { ranks: ranks as 1 | 2, maxRunning: 8, cacheTokens: 4096, maxContext: 512 }
const rows = [['requests', 'draftTokens', 'tokens a step', 'right', 'tokens a CPU second', 'tokens a second']]
for (const draftTokens of [0, 2, 4, 6, 8, 12, 16]) {
  const engine = await Engine.load(dir, { ...options, ...(draftTokens > 0 && { draft: TINY, draftTokens }) })
  for (const requests of [1, 4, 8]) {
    const seen = { perStep: 0, right: 0 }
    const wall: number[] = []
    const { cpu } = await inTurn(rounds, {
      cpu: async () => {
        const [steps, used, start] = [engine.stats().ranks[0]?.steps ?? 0, process.cpuUsage(), performance.now()]
        const prompts = Array.from({ length: requests }, (_, i) => [...prompt, i])
        const done = await engine.generateMany(prompts, { maxTokens: TOKENS, ignoreEos: true, temperature: 0.8, seed: 1 })
        const { user, system } = process.cpuUsage(used)
        wall.push((requests * TOKENS * 1000) / (performance.now() - start))
        seen.perStep = (requests * TOKENS) / ((engine.stats().ranks[0]?.steps ?? 0) - steps)
        const [drafted, accepted] = [
          done.reduce((sum, { usage }) => sum + (usage.draftedTokens ?? 0), 0),
          done.reduce((sum, { usage }) => sum + (usage.acceptedTokens ?? 0), 0),
        ]
        seen.right = drafted === 0 ? 0 : accepted / drafted
        return (requests * TOKENS * 1e6) / (user + system)
      },
    })
    const right = draftTokens === 0 ? '' : `${(100 * seen.right).toFixed(0)} %`
    rows.push([
      String(requests),
      draftTokens === 0 ? 'no draft' : String(draftTokens),
      seen.perStep.toFixed(1),
      right,
      spread(cpu),
      spread(wall.slice(1)),
    ])
  }
  await engine.close()
}
console.log(`${machine()}; ${layers} layers and 8 layers, ${ranks} ranks, ${rounds} rounds\n${table(rows)}`)
