// tetrad synth
import type { Command } from 'commander'
import { VARIANT_NAMES } from '../model/attention-variants.js'
import { int } from '../options/entry.js'
import { PRESETS } from '../tools/synth/presets.js'
import { type SynthOptions, synthesize } from '../tools/synth/synthesize.js'
import { checkFlags, type Flags, given, withFlags } from './flags.js'
import { interruption, progressBar } from './progress.js'

interface SynthFlags extends Flags {
  readonly variant?: string
  readonly config?: string
  readonly preset?: string
  readonly dtype?: string
}

const SYNTH_FLAGS = { seed: int({ min: 0, max: Number.MAX_SAFE_INTEGER, default: 0, doc: 'equal seeds give equal files' }) }

export function addSynth(program: Command): void {
  const command = program
    .command('synth')
    .description('write a checkpoint of random weights, to benchmark any shape without a published model')
    .argument('<out>', 'directory to write config.json and model.safetensors to')
    .option('--variant <name>', `attention variant (required, unless the file of --config names one): ${VARIANT_NAMES.join(', ')}`)
    .option('--config <file>', 'a config.json with the dimensions; this or --preset is required')
    .option('--preset <name>', `dimensions by name: ${Object.keys(PRESETS).join(' or ')}`)
    .option('--dtype <type>', 'bf16, f16 or f32 (default: bf16)')
    .option('--json', 'print one line of JSON on stdout and nothing else there')
  withFlags(command, SYNTH_FLAGS).action(synth)
}

async function synth(out: string, flags: SynthFlags): Promise<void> {
  const signal = interruption()
  const bar = progressBar('writing')
  const { json, ...options } = { ...flags, ...checkFlags(SYNTH_FLAGS, flags) }
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
