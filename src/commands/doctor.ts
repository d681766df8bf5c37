// tetrad doctor
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
    .description('show what this machine offers, what is missing, and how to mend it')
    .option('--adapter <name>', "part of a GPU adapter's name, as generate takes it")
    .option('--json', 'print one line of JSON on stdout and nothing else there')
    .action(diagnose)
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
