// tetrad synth
import type { Command } from 'commander'
import { VARIANT_NAMES } from '../model/attention-variants.js'
import { PRESETS } from '../tools/synth/presets.js'
import { type SynthOptions, synthesize } from '../tools/synth/synthesize.js'
import { given, number } from './flags.js'
import { interruption, progressBar } from './progress.js'

interface SynthFlags {
  variant?: string
  config?: string
  preset?: string
  dtype?: string
  seed?: number
  json?: boolean
}

export function addSynth(program: Command): void {
  program
    .command('synth')
    .description('write a checkpoint of random weights, to benchmark any shape without a published model')
    .argument('<out>', 'directory to write config.json and model.safetensors to')
    .option('--variant <name>', `attention variant: ${VARIANT_NAMES.join(', ')}`)
    .option('--config <file>', 'a config.json with the dimensions')
    .option('--preset <name>', `dimensions by name: ${Object.keys(PRESETS).join(' or ')}`)
    .option('--dtype <type>', 'bf16, f16 or f32 (default: bf16)')
    .option('--seed <n>', 'the same seed gives the same files (default: 0)', number)
    .option('--json', 'print one line of JSON on stdout and nothing else there')
    .action(synth)
}

async function synth(out: string, flags: SynthFlags): Promise<void> {
  const signal = interruption()
  const bar = progressBar('writing')
  const { json, ...options } = flags
  const result = await synthesize(out, {
    ...(given(options) as SynthOptions),
    signal,
    onProgress: ({ writtenBytes, totalBytes }) => bar.update(writtenBytes, totalBytes),
  }).finally(() => bar.stop())
  const size = (result.bytes / 2 ** 20).toFixed(0)
  console.log(
    json ? JSON.stringify(result) : `${result.dir}: ${result.variant}, ${result.parameters.toLocaleString('en')} random parameters, ${size} MiB`,
  )
}
