// The types that the package publishes, as a program sees them that has installed it.
import { spawnSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ROOT } from './support/fixtures.js'
import { temporary } from './support/models.js'

const PROGRAM = `
import { type Completion, Engine, type EngineOptions, inspect, TetradError } from 'tetrad'
import { injectFault, readCounters } from 'tetrad/testing'
const options: EngineOptions = { ranks: 'auto', cache: 'bf16' }
await using engine = await Engine.load('model', options)
const completion: Completion = await engine.generate('Once', { maxTokens: 8, signal: AbortSignal.timeout(1000) })
for await (const { text, tokens } of engine.generate('Once')) console.log(text.length, tokens[0])
const logits: Float32Array = await engine.logits([1, 2])
injectFault(engine, { rank: 0, kind: 'throw' })
const error: Error = new TetradError('OPTION_INVALID', { what: '', expected: '', actual: '', remedy: '' })
console.log(completion.finishReason, logits.length, readCounters(engine).length, (await inspect('model')).parameters, error)
`

test('declarations of tetrad and tetrad/testing compile in a strict program that checks libraries too, and refuse a wrong type', (t) => {
  const dir = temporary(t)
  mkdirSync(join(dir, 'node_modules'))
  symlinkSync(ROOT, join(dir, 'node_modules/tetrad'))
  symlinkSync(join(ROOT, 'node_modules/@types'), join(dir, 'node_modules/@types'))
  writeFileSync(join(dir, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(dir, 'right.ts'), PROGRAM)
  writeFileSync(join(dir, 'wrong.ts'), PROGRAM.replace("cache: 'bf16'", 'cache: 7'))
  const flags = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', '--lib', 'es2024,esnext.disposable', '--types', 'node']
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc')
  const { stdout } = spawnSync(process.execPath, [compiler, 'right.ts', 'wrong.ts', ...flags], { cwd: dir, encoding: 'utf8' })
  t.regex(stdout, /^wrong\.ts\(4,\d+\): error TS2322: Type 'number' is not assignable[^\n]*\n$/)
})
