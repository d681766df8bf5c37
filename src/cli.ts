#!/usr/bin/env node
// The tetrad command. stdout carries the result or one line of JSON; progress and everything else go to stderr.
import { Command, CommanderError, Help, InvalidArgumentError } from 'commander'
import { addBatch } from './commands/batch.js'
import { addBench } from './commands/bench.js'
import { addChat } from './commands/chat.js'
import { addConvert } from './commands/convert.js'
import { addDoctor } from './commands/doctor.js'
import { addEval } from './commands/eval.js'
import { inFlags } from './commands/flags.js'
import { addGenerate } from './commands/generate.js'
import { addInspect } from './commands/inspect.js'
import { addPull } from './commands/pull.js'
import { addServe } from './commands/serve.js'
import { addSynth } from './commands/synth.js'
import { addTokenize } from './commands/tokenize.js'
import { OptionError, TetradError } from './errors.js'
import { VERSION } from './version.js'

const program = new Command('tetrad')
  .description('Decodes MLRA language models by tensor parallelism over worker threads.')
  .version(VERSION)
  .exitOverride()
  .configureHelp({
    optionDescription: (option) => `${new Help().optionDescription(option)}${option.mandatory ? ' (required)' : ''}`,
  })
  .configureOutput({ writeOut: (text) => process.stdout.write(text), writeErr: (text) => process.stderr.write(text) })

for (const add of [addGenerate, addChat, addInspect, addEval, addSynth, addConvert, addPull, addTokenize, addDoctor, addServe, addBatch, addBench])
  add(program)

/** Stopped by Ctrl-C: what was asked for did not happen, and the user knows why. */
const STOPPED = ['LOAD_ABORTED', 'REQUEST_ABORTED', 'SYNTH_ABORTED', 'BATCH_ABORTED']

function exitCode(error: unknown): number {
  return error instanceof TetradError && STOPPED.includes(error.code) ? 130 : 1
}

function report(error: unknown): void {
  if (error instanceof TetradError) {
    const option = error instanceof OptionError ? error.option : undefined
    // An error about a flag names it already; the engine's own messages have the API's names.
    const text = (message: string) => (option?.startsWith('--') ? message : inFlags(message, option))
    const lines = [`error ${error.code}: ${text(error.what)}`]
    if (error.expected) lines.push(`  expected: ${text(error.expected)}`)
    if (error.actual) lines.push(`  actual:   ${text(error.actual)}`)
    lines.push(`  remedy:   ${text(error.remedy)}`)
    console.error(lines.join('\n'))
  } else {
    console.error(`error: ${error instanceof Error ? error.message : String(error)}`)
  }
}

// A reader that closed the pipe (head, say) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // Help and version end here too, with 0; commander has printed its message.
    if (error instanceof InvalidArgumentError) console.error(`error: ${error.message}`)
    process.exitCode = error.exitCode === 0 ? 0 : 1
  } else {
    report(error)
    process.exitCode = exitCode(error)
  }
}
