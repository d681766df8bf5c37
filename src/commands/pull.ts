// tetrad pull
import type { Command } from 'commander'
import { pull as pullModel } from '../hub/pull-model.js'
import { type Flags, withJsonFlag } from './flags.js'
import { downloadBar } from './local-model.js'
import { interruption } from './progress.js'

export function addPull(program: Command): void {
  const command = program
    .command('pull')
    .description("download a model of the Hugging Face Hub into its cache, and print the model's path")
    .argument('<model>', 'hf:owner/name[@revision][/folder], or with /file.gguf at its end')
  withJsonFlag(command).action(pull)
}

async function pull(address: string, flags: Flags): Promise<void> {
  const bar = downloadBar()
  const result = await pullModel(address, { onProgress: (progress) => bar.update(progress), signal: interruption() }).finally(() => bar.stop())
  if (flags.json) console.log(JSON.stringify(result))
  else {
    console.error(result.downloadedBytes === 0 ? 'nothing was missing' : `downloaded ${(result.downloadedBytes / 2 ** 20).toFixed(0)} MiB`)
    console.log(result.path)
  }
}
