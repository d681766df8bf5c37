// tetrad doctor
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text as readAll } from 'node:stream/consumers'
import type { Command } from 'commander'
import { doctor } from '../tools/doctor/doctor.js'
import { formatDiagnosis } from '../tools/doctor/format-doctor.js'
import { given } from './flags.js'

interface DoctorFlags {
  adapter?: string
  json?: boolean
}

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('show what this machine offers, what is missing, and how to fix it')
    .option('--adapter <name>', "part of a GPU adapter's name, as generate takes it")
    .option('--json', 'print one line of JSON on stdout and nothing else there')
    .action((flags: DoctorFlags) => (process.env[INNER] === undefined ? runQuietly() : diagnose(flags)))
}

/** Set in the process that looks at the machine. */
const INNER = 'TETRAD_DOCTOR_INNER'

/**
 * Runs the command in a process of its own and passes only its own words on: drivers and Dawn write warnings straight to stderr, which say
 * what the page says better. What it wrote when it failed without a word of its own is passed on whole.
 */
async function runQuietly(): Promise<void> {
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    env: { ...process.env, [INNER]: '1' },
    stdio: ['ignore', 'inherit', 'pipe'],
  })
  const [said, [code]] = await Promise.all([readAll(child.stderr), once(child, 'exit') as Promise<[number | null]>])
  const own = /^error [A-Z_]+: /m.exec(said)
  if (own) process.stderr.write(said.slice(own.index))
  else if (code !== 0 && !(code === 1 && process.argv.some((argument) => argument.startsWith('--adapter')))) process.stderr.write(said)
  process.exitCode = code ?? 1
}

async function diagnose({ adapter, json }: DoctorFlags): Promise<void> {
  const diagnosis = await doctor(given({ adapter }))
  // A named adapter that does not answer is a wrong argument: loading with it fails too.
  if (adapter !== undefined && diagnosis.auto.backend === undefined) process.exitCode = 1
  const text = json ? JSON.stringify(diagnosis) : formatDiagnosis(diagnosis)
  await new Promise<void>((resolve) => process.stdout.write(`${text}\n`, () => resolve()))
  // A question that the driver still owes an answer to would keep the process.
  if (diagnosis.gpu.unanswered.length > 0) process.exit()
}
