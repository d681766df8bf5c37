// What a draft model gains: models/tiny drafts for itself with further layers that change nothing, so that nearly all guesses are right.
// Tokens for a second of the process's CPU time, in turn without and with it, and tokens of a step.
// Usage: node dist/bench/diagnostics/draft.js [layers] [rounds] [ranks] [requests,...] [draftTokens,...]
import { mkdirSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { Engine } from '../../src/index.js'
import { deeperModel } from '../deeper-model.js'
import { inTurn, machine, spread, table, temporaryFolder } from '../measure.js'

const [layers = '48', rounds = '5', ranks = '1', requests = '1,4,8', lengths = '4,6,8,16'] = process.argv.slice(2)
const TINY = 'models/tiny'
const TOKENS = 48
const dir = join(temporaryFolder(), 'deeper')
mkdirSync(dir)
await deeperModel(TINY, dir, Number(layers))

const options = { ranks: Number(ranks) as 1 | 2, maxRunning: 8, cacheTokens: 2048, maxContext: 256 }
const engines = new Map<string, Engine>([['none', await Engine.load(dir, options)]])
for (const length of lengths.split(',')) engines.set(length, await Engine.load(dir, { ...options, draft: TINY, draftTokens: Number(length) }))

const rows = [['requests', 'draftTokens', 'tokens a step', 'right', 'tokens a CPU second']]
for (const count of requests.split(',').map(Number)) {
  const facts = new Map<string, readonly [perStep: string, right: string]>()
  const run = (name: string, engine: Engine) => async () => {
    const [before, used] = [engine.stats(), process.cpuUsage()]
    const prompts = Array.from({ length: count }, (_, i) => Array.from({ length: 32 }, (_, t) => (t * 37 + i) % 4096))
    await engine.generateMany(prompts, { maxTokens: TOKENS, ignoreEos: true, temperature: 0.8, seed: 1 })
    const { user, system } = process.cpuUsage(used)
    const after = engine.stats()
    const drafted = after.draftedTokens - before.draftedTokens
    const perStep = (count * TOKENS) / ((after.ranks[0]?.steps ?? 0) - (before.ranks[0]?.steps ?? 0))
    const right = drafted === 0 ? '' : `${((100 * (after.acceptedTokens - before.acceptedTokens)) / drafted).toFixed(0)} %`
    facts.set(name, [perStep.toFixed(1), right])
    return (count * TOKENS * 1e6) / (user + system)
  }
  const speeds = await inTurn(Number(rounds), Object.fromEntries([...engines].map(([name, engine]) => [name, run(name, engine)])))
  for (const [name, values] of Object.entries(speeds)) rows.push([String(count), name, ...(facts.get(name) ?? []), spread(values)])
}
for (const engine of engines.values()) await engine.close()
console.log(`${machine()}; ${layers} layers and 8 layers, ${ranks} ranks, ${rounds} rounds, load ${loadavg()[0]?.toFixed(0)}\n${table(rows)}`)
