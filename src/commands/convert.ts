// tetrad convert

import type { Command } from 'commander'
import { WEIGHT_FORMAT_NAMES } from '../../kernels/weight-formats.js'
import { type ConvertOptions, convert } from '../tools/convert.js'
import { given, withJsonFlag } from './flags.js'
import { commandModel } from './local-model.js'
import { interruption, progressBar } from './progress.js'

interface ConvertFlags {
  weights: string
  variant?: string
  json?: boolean
}

export function addConvert(program: Command): void {
  const command = program
    .command('convert')
    .description('write a checkpoint in the packed form, which loads without repacking')
    .argument('<model>', 'model directory, .gguf file, or hf:owner/name[@revision][/folder] of the Hugging Face Hub')
    .argument('<out>', 'directory to write to')
    .requiredOption('--weights <format>', `format of the packed weights: ${WEIGHT_FORMAT_NAMES.join(', ')}`)
    .option('--variant <name>', 'attention variant, where the keys do not tell it')
  withJsonFlag(command).action(run)
}

async function run(model: string, out: string, flags: ConvertFlags): Promise<void> {
  const signal = interruption()
  const dir = await commandModel(model, signal, flags.json)
  const bar = progressBar('packing')
  const { json, ...options } = flags
  const result = await convert(dir, out, {
    ...(given(options) as unknown as ConvertOptions),
    signal,
    onProgress: ({ loadedBytes, totalBytes }) => bar.update(loadedBytes, totalBytes),
  }).finally(() => bar.stop())
  console.log(
    json ? JSON.stringify(result) : `${result.dir}: ${result.variant}, packed ${result.weights}, ${(result.bytes / 2 ** 20).toFixed(0)} MiB`,
  )
}
