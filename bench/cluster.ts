// Cost of a NATS hop and gain of more replicas on one machine, and the pause of a stream when its replica dies.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { OptionError } from '../src/index.js'
import { type Benchmark, interleave, type Row } from './harness/benchmark.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { quantile } from './measure.js'
import { TINY } from './traffic.js'

interface Cell {
  readonly path: string
  readonly replicas: number
  readonly origin: () => string
  readonly ttft: number[]
  readonly ttft99: number[]
  readonly token: number[]
  readonly token99: number[]
  readonly rate: number[]
  readonly gap: number[]
}

const TOKENS = 48
const CONNECTIONS = 12
const READY = /ready: (\S+)\/v1/

export const cluster: Benchmark = {
  name: 'cluster',
  question: 'What does a NATS hop cost on one machine, what do more replicas gain, and how long does a stream pause when its replica dies?',
  supports: [],
  async run(context) {
    checkServer()
    const processes = new Set<ChildProcess>()
    const start = async (command: string, args: readonly string[], ready: RegExp) => {
      const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
      processes.add(child)
      return { child, found: await lineOf(child, ready) }
    }
    const cli = fileURLToPath(new URL('../src/cli.js', import.meta.url))
    const tetrad = (...args: string[]) => start(process.execPath, [cli, 'serve', '--port', '0', ...args], READY)
    try {
      const port = String(20_000 + (process.pid % 20_000))
      const store = join(context.folder, 'nats')
      await start('nats-server', ['-a', '127.0.0.1', '-p', port, '-js', '-sd', store], /Server is ready/)
      const url = `nats://127.0.0.1:${port}`
      const replica = (replicas: number) => tetrad('--nats', url, '--ranks', '1', '--model', `of${replicas}=${TINY}`)
      const counts = context.quick ? [1, 2] : [1, 2, 3]
      const started = await Promise.all(counts.flatMap((n) => Array.from({ length: n }, async () => ({ n, ...(await replica(n)) }))))
      const { found: front } = await tetrad('--front', '--nats', url)
      await untilServed(front, counts)
      const direct = started.find(({ n }) => n === 1)?.found as string
      const cell = (path: string, replicas: number, origin: () => string): Cell => ({
        ...{ path, replicas, origin, ttft: [], ttft99: [], token: [], token99: [], rate: [], gap: [] },
      })
      const cells = [
        cell('one engine, asked directly', 1, () => direct),
        ...counts.map((n) => cell(`front, ${n} replica${n === 1 ? '' : 's'}`, n, () => front)),
      ]
      const victims = started.filter(({ n }) => n === 2).map(({ child }) => child)
      let seed = context.seed * 1000
      await interleave(context, cells, async ({ origin, replicas, ttft, ttft99, token, token99, rate, gap }, warmUp) => {
        const ask = (most = TOKENS, onToken?: (tokens: number) => void) =>
          stream(`${origin()}/v1/completions`, `of${replicas}`, ++seed, most, onToken)
        const alone: Stream[] = []
        for (let i = 0; i < (context.quick ? 4 : 20); i++) alone.push(await ask())
        const begin = performance.now()
        const all = Array.from({ length: context.quick ? 12 : 48 }, (_, i) => i)
        await Promise.all(
          Array.from({ length: CONNECTIONS }, async () => {
            while (all.pop() !== undefined) await ask()
          }),
        )
        const seconds = (performance.now() - begin) / 1000
        const pause = replicas === 2 ? await killed(ask, victims.shift() as ChildProcess) : undefined
        if (replicas === 2) {
          victims.push((await replica(2)).child)
          await setTimeout(2000)
          // A new process runs unoptimized code at first.
          for (let i = 0; i < 16; i++) await ask()
        }
        if (warmUp) return
        const first = alone.map((s) => s.ttft)
        const steps = alone.flatMap((s) => s.steps)
        ttft.push(quantile(first, 0.5))
        ttft99.push(quantile(first, 0.99))
        token.push(quantile(steps, 0.5))
        token99.push(quantile(steps, 0.99))
        rate.push(((context.quick ? 12 : 48) * TOKENS) / seconds)
        if (pause !== undefined) gap.push(pause)
      })
      const rows = cells
        .filter(({ rate }) => rate.length > 0)
        .map(({ path, ttft, ttft99, token, token99, rate, gap }): Row & { readonly rate: Sample; readonly ttft: Sample; readonly token: Sample } => ({
          path,
          ttft: sampleOf(ttft) as Sample,
          ttft99: sampleOf(ttft99),
          token: sampleOf(token) as Sample,
          token99: sampleOf(token99),
          rate: sampleOf(rate) as Sample,
          gap: sampleOf(gap),
        }))
      const [own, hop, ...more] = rows
      const pause = rows.find(({ gap }) => gap !== undefined)?.gap as Sample | undefined
      return {
        floor: 'one engine asked directly over HTTP; all replicas share the cores of this machine, so more replicas gain only what one leaves idle',
        method: `models/tiny (bf16, 1 rank each) in processes of their own, nats-server and the front beside them; prompts of 16 tokens without a common prefix, ${TOKENS} out, streamed. Latency: one request after another; throughput: ${CONNECTIONS} connections. Pause: one of two replicas gets SIGKILL; from the last token before it to the next one.`,
        columns: [
          { key: 'path', label: 'path' },
          { key: 'ttft', label: 'TTFT p50', unit: 'ms', digits: 1 },
          { key: 'ttft99', label: 'p99', unit: 'ms', digits: 1 },
          { key: 'token', label: 'a token p50', unit: 'ms', digits: 2 },
          { key: 'token99', label: 'p99', unit: 'ms', digits: 1 },
          { key: 'rate', label: 'tokens a second', digits: 0 },
          { key: 'gap', label: 'pause', unit: 'ms', digits: 0 },
        ],
        rows,
        pictures: [
          {
            name: '',
            title: `Tokens a second over ${CONNECTIONS} connections`,
            kind: 'bars',
            x: { title: 'path' },
            y: { title: 'tokens a second' },
            points: rows.map(({ path, rate }) => ({ x: path as string, ...plotted(rate), series: 'models/tiny' })),
          },
        ],
        answer: [
          ...(own && hop
            ? [
                `The hop over NATS costs ${(hop.ttft.median - own.ttft.median).toFixed(1)} ms to the first token and ${((hop.token.median - own.token.median) * 1000).toFixed(0)} microseconds a token.`,
              ]
            : []),
          ...(hop
            ? more.map(
                ({ path, rate }) => `${path as string}: ${(rate.median / hop.rate.median).toFixed(2)} times the tokens of one behind the front.`,
              )
            : []),
          ...(pause ? [`A stream whose replica is killed pauses for ${pause.median.toFixed(0)} ms.`] : []),
        ],
      }
    } finally {
      for (const child of processes) {
        child.kill('SIGKILL')
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      }
    }
  },
}

interface Stream {
  readonly ttft: number
  readonly steps: readonly number[]
}

/** One streamed request. onToken: called with the number of tokens received so far. */
async function stream(url: string, model: string, seed: number, most: number, onToken: (tokens: number) => void = () => {}): Promise<Stream> {
  const prompt = Array.from({ length: 16 }, (_, i) => 300 + ((seed * 31 + i * 7) % 3000))
  const body = JSON.stringify({ model, prompt, max_tokens: most, temperature: 0, ignore_eos: true, stream: true, logprobs: 0 })
  const start = performance.now()
  const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  if (!response.ok || !response.body) throw new Error(`${url} answered ${response.status}: ${await response.text()}`)
  const times: number[] = []
  let rest = ''
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + text).split('\n\n')
    rest = events.pop() as string
    for (const event of events) {
      const tokens = tokensOf(event)
      for (let i = 0; i < tokens; i++) times.push(performance.now())
      if (tokens > 0) onToken(times.length)
    }
  }
  if (times.length !== most) throw new Error(`expected ${most} tokens, received ${times.length}`)
  return { ttft: (times[0] as number) - start, steps: times.slice(1).map((at, i) => at - (times[i] as number)) }
}

/** Streams from two replicas, of which one is killed after 20 tokens. Returns the longest pause between two tokens, in ms. */
async function killed(ask: (most: number, onToken: (tokens: number) => void) => Promise<Stream>, victim: ChildProcess): Promise<number> {
  const streams = await Promise.all(
    Array.from({ length: 6 }, () =>
      ask(150, (tokens) => {
        if (tokens === 20 && victim.signalCode === null) victim.kill('SIGKILL')
      }),
    ),
  )
  return Math.max(...streams.flatMap(({ steps }) => steps))
}

function checkServer(): void {
  if (spawnSync('nats-server', ['--version']).status === 0) return
  throw new OptionError('OPTION_INVALID', {
    what: 'the benchmark cluster needs nats-server',
    expected: 'nats-server on the PATH',
    actual: 'none',
    remedy: 'Install it (Debian: nats-server), or run the other benchmarks.',
  })
}

/** Reads a child's stderr until it matches. Returns the first group, or the match. */
async function lineOf(child: ChildProcess, pattern: RegExp): Promise<string> {
  let text = ''
  return new Promise((resolve, reject) => {
    child.stderr?.setEncoding('utf8').on('data', (more: string) => {
      // Later output is read and dropped: a full pipe would block the child.
      if (text.length > 65_536) return
      text += more
      const found = pattern.exec(text)
      if (found) resolve(found[1] ?? found[0])
    })
    child.once('error', reject)
    child.once('exit', () => reject(new Error(`the process exited before it was ready: ${text.slice(-500)}`)))
  })
}

async function untilServed(front: string, counts: readonly number[]): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const { models } = (await (await fetch(`${front}/ready`)).json()) as { models?: readonly string[] }
    if (counts.every((n) => models?.includes(`of${n}`))) return
    await setTimeout(100)
  }
  throw new Error('the front did not find the replicas within 20 s')
}

function tokensOf(event: string): number {
  if (event === 'data: [DONE]') return 0
  const { choices } = JSON.parse(event.slice('data: '.length)) as { choices: { logprobs: { tokens: string[] } | null }[] }
  return choices[0]?.logprobs?.tokens.length ?? 0
}
