// tetrad inspect
import { type Command, InvalidArgumentError } from 'commander'
import { EMBEDDED_MODEL } from '../assets.js'
import { formatComparison, formatInspection } from '../tools/format-inspection.js'
import { type Inspection, inspect, inspectConfig } from '../tools/inspect.js'
import { engineOptions, type Flags, MODEL_DOC, withEngineFlags } from './flags.js'
import { commandModel } from './local-model.js'
import { interruption } from './progress.js'

interface InspectFlags extends Flags {
  readonly config?: string
}

export function addInspect(program: Command): void {
  withEngineFlags(program.command('inspect').description('show what a model is and how it would run').argument('[model]', MODEL_DOC))
    .option('--config <file>', 'a config.json alone, without weights; --variant says of which variant')
    .action(inspectModel)
}

async function inspectModel(dir: string | undefined, flags: InspectFlags): Promise<void> {
  if (flags.config === undefined) {
    const options = engineOptions(flags)
    const model = await commandModel(dir ?? EMBEDDED_MODEL, interruption(), flags.json)
    const result = await inspect(model, options)
    console.log(flags.json ? JSON.stringify(result) : formatInspection(result))
    return
  }
  if (dir !== undefined) throw new InvalidArgumentError('Give a model directory or --config, not both.')
  const results = await inspectConfig(flags.config, engineOptions(flags))
  const [first, ...others] = results as [Inspection, ...Inspection[]]
  if (flags.json) console.log(JSON.stringify(others.length === 0 ? first : { variants: results }))
  else console.log(others.length === 0 ? formatInspection(first) : formatComparison(results))
}
