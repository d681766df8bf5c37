// tetrad batch in.jsonl out.jsonl: OpenAI's batch requests from a file, on an engine of this process or as jobs of a NATS cluster.
import { stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import type { Command } from 'commander'
import { BatchError } from '../errors.js'
import { invalidOption } from '../options/check.js'
import { int } from '../options/entry.js'
import { type BatchFacts, scanBatch } from '../serve/batch/batch-file.js'
import { BatchOutput } from '../serve/batch/batch-output.js'
import { checkFlags, collect, engineOptions, type Flags, withEngineFlags, withFlags, withLoraFlag } from './flags.js'
import { type NatsFlags, natsOptions, withNatsFlags } from './nats-flags.js'
import { interruption, progressBar } from './progress.js'
import { adapterNames, closeModels, loadModels, NAMED_MODEL_DOC, namedDirectories } from './served-models.js'

interface BatchFlags extends Flags, NatsFlags {
  readonly model?: string[]
}

const BATCH_FLAGS = { concurrency: int({ min: 1, max: 256, default: 8, doc: 'requests that run at the same time' }) }

/** How long a model's replicas are waited for. */
const WAIT_MS = 30_000

export function addBatch(program: Command): void {
  const command = withEngineFlags(
    program
      .command('batch')
      .description("run OpenAI's batch requests from a file; stopped and started again, it goes on")
      .argument('<requests>', 'JSONL file: custom_id, method POST, url /v1/completions or /v1/chat/completions, body')
      .argument('<results>', 'JSONL file for the results'),
  ).option('--model <model>', NAMED_MODEL_DOC, collect)
  withLoraFlag(command, ', under a model name of its own; again for another')
  withNatsFlags(withFlags(command, BATCH_FLAGS), 'as jobs of a NATS cluster, whose replicas have the models').action(
    (requests: string, results: string, flags: BatchFlags) => batch(requests, results, flags, command),
  )
}

async function batch(requests: string, results: string, flags: BatchFlags, command: Command): Promise<void> {
  const nats = natsOptions(flags)
  const { concurrency } = checkFlags(BATCH_FLAGS, flags)
  engineOptions(flags)
  const useless = command.options.find(
    (option) =>
      command.getOptionValueSource(option.attributeName()) === 'cli' &&
      !option.attributeName().startsWith('nats') &&
      option.attributeName() !== 'json',
  )
  if (nats && useless) {
    throw invalidOption({
      what: `a batch in a cluster has no engine for ${useless.long}`,
      expected: 'only --json and the flags of NATS beside --nats',
      actual: useless.long ?? '',
      remedy: 'Give it to the replicas: tetrad serve --nats.',
    })
  }
  const signal = interruption()
  const facts = await scanBatch(requests)
  await checkApart(requests, results)
  const summary = nats
    ? await inCluster(nats, requests, results, facts, signal)
    : await locally(requests, results, facts, { ...flags, concurrency }, signal)
  if (flags.json) console.log(JSON.stringify(summary))
  else console.error(`${summary.requests} results in ${results}, ${summary.failed} of them failed; ${summary.ran} ran now, in ${summary.seconds} s`)
}

interface Summary {
  readonly requests: number
  /** Of all results: no response, or a status of 400 or more. */
  readonly failed: number
  /** Not those that were in the file before. */
  readonly ran: number
  readonly seconds: number
}

async function locally(
  requests: string,
  results: string,
  facts: BatchFacts,
  flags: BatchFlags & { readonly concurrency: number },
  signal: AbortSignal,
): Promise<Summary> {
  const [{ createServer }, { runLocally }] = await Promise.all([import('../serve/server.js'), import('../serve/batch/run-locally.js')])
  const named = namedDirectories(flags.model)
  const adapters = adapterNames(named, flags)
  const models = await loadModels(named, { ...flags, json: flags.json === true }, undefined, true, signal)
  try {
    warnOfUnserved(facts, [...models.keys(), ...adapters])
    const fingerprints = new Map([...models].map(([id, { fingerprint }]) => [id, fingerprint as string]))
    // With adapters there is one model, whose fingerprint their answers have.
    for (const { fingerprint } of models.values()) for (const name of adapters) fingerprints.set(name, fingerprint as string)
    const stop = () => void closeModels(models, 0)
    signal.addEventListener('abort', stop, { once: true })
    // Nobody listens: requests are injected.
    const { app } = createServer(models)
    const { concurrency } = flags
    return await withOutput(results, facts, fingerprints, (output, onDone) =>
      runLocally({ app, models, path: requests, output, concurrency, onDone, signal }),
    )
  } finally {
    await closeModels(models, 0)
  }
}

async function inCluster(
  nats: NonNullable<ReturnType<typeof natsOptions>>,
  requests: string,
  results: string,
  facts: BatchFacts,
  signal: AbortSignal,
): Promise<Summary> {
  const [{ NatsLink }, { Cluster }, { runInCluster }] = await Promise.all([
    import('../serve/nats/connection.js'),
    import('../serve/nats/cluster.js'),
    import('../serve/nats/run-in-cluster.js'),
  ])
  const log = (text: string) => console.error(text)
  const link = await NatsLink.open(nats, `tetrad batch on ${hostname()}`, log)
  const cluster = await Cluster.join(link, log)
  try {
    const until = performance.now() + WAIT_MS
    while ([...facts.models].some((name) => !cluster.group(name)) && performance.now() < until && !signal.aborted)
      await new Promise((done) => setTimeout(done, 100))
    warnOfUnserved(facts, cluster.models.keys())
    const groups = new Map(
      [...facts.models].flatMap((name) => {
        const group = cluster.group(name)
        return group === undefined ? [] : [[name, group] as const]
      }),
    )
    return await withOutput(results, facts, groups, (output, onDone) =>
      runInCluster({ link, path: requests, facts, output, groups, groupNow: (name) => cluster.group(name), onDone, log, signal }),
    )
  } finally {
    await cluster.close()
    await link.close()
  }
}

/** Runs over an open file of results, with a bar. */
async function withOutput(
  path: string,
  facts: BatchFacts,
  fingerprints: ReadonlyMap<string, string>,
  run: (output: BatchOutput, onDone: () => void) => Promise<void>,
): Promise<Summary> {
  const start = performance.now()
  const output = await BatchOutput.open(path, facts, fingerprints)
  const before = output.done
  if (before > 0) console.error(`${before} of ${facts.lines.size} results are there already`)
  const bar = progressBar('running', 'requests')
  try {
    await run(output, () => bar.update(output.done, facts.lines.size))
    const { failed } = output
    return { requests: facts.lines.size, failed, ran: output.done - before, seconds: Math.round((performance.now() - start) / 100) / 10 }
  } finally {
    bar.stop()
    await output.close()
  }
}

/** A file of requests is not written over. Throws BatchError. */
async function checkApart(requests: string, results: string): Promise<void> {
  const [from, to] = await Promise.all([stat(requests), stat(results).catch(() => undefined)])
  if (from.dev !== to?.dev || from.ino !== to.ino) return
  throw new BatchError('BATCH_OUTPUT_MISMATCH', {
    what: `${results} is the file of the requests`,
    expected: 'another file for the results',
    actual: requests,
    remedy: 'Name another file.',
  })
}

/** Requests of a model that nobody serves get a result with status 404; the others run. */
function warnOfUnserved({ models }: BatchFacts, served: Iterable<string>): void {
  const names = [...served]
  for (const name of models) {
    if (names.includes(name)) continue
    console.error(`the model ${JSON.stringify(name)} is not served (served: ${names.join(', ') || 'none'}): its requests get status 404`)
  }
}
