// The server under load, beside llama.cpp behind a minimal server. Each connection sends one request after another.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Benchmark, interleave, type Row } from './harness/benchmark.js'
import { plotted, type Sample, sampleOf } from './harness/sample.js'
import { writeGguf } from './peers/write-gguf.js'
import { installedPeers } from './peers.js'
import { TINY } from './traffic.js'

interface Load {
  readonly requests: { readonly average: number; readonly total: number }
  readonly latency: { readonly p50: number; readonly p99: number }
  readonly non2xx: number
  readonly errors: number
  readonly timeouts: number
}

type Autocannon = (options: object) => Promise<Load>

interface Cell {
  readonly server: 'tetrad' | 'llama.cpp'
  readonly connections: number
  readonly rate: number[]
  readonly p99: number[]
  refused: number
  failed: number
}

const TOKENS_OUT = 16
/** Waiting requests that Tetrad accepts. It answers more with 429. */
const MAX_WAITING = 100

export const serving: Benchmark = {
  name: 'serving',
  question: 'How many requests a second does the server answer, and how late, beside llama.cpp behind a minimal server?',
  supports: ['peers'],
  async run(context) {
    const folder = await installedPeers(context)
    const autocannon = createRequire(join(resolve(folder), 'index.js'))('autocannon') as Autocannon
    const gguf = join(context.folder, 'tiny.gguf')
    writeGguf(gguf, { layers: 8, embed: 384, heads: 6, intermediate: 1024, vocab: 4096 }, 'f16')
    const llama = spawn(process.execPath, [fileURLToPath(new URL('./peers/llama-server.js', import.meta.url)), folder, gguf, '8', '1'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const ours = spawn(process.execPath, [fileURLToPath(new URL('./serving-process.js', import.meta.url)), TINY, '2', String(MAX_WAITING)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const ports = { tetrad: await portOf(ours), 'llama.cpp': await portOf(llama) }
      const counts = context.quick ? [1, 8] : [1, 8, 64, 256]
      const cells = counts.flatMap((connections) =>
        (['tetrad', 'llama.cpp'] as const).map((server): Cell => ({ server, connections, rate: [], p99: [], refused: 0, failed: 0 })),
      )
      let seed = context.seed
      await interleave(context, cells, async (cell, warmUp) => {
        const load = await autocannon({
          url: `http://127.0.0.1:${ports[cell.server]}/v1/completions`,
          method: 'POST',
          connections: cell.connections,
          duration: context.quick ? 2 : 6,
          timeout: 60,
          headers: { 'content-type': 'application/json' },
          // Every request begins with another token: prefixes are not shared.
          setupClient: (client: { setBody(body: string): void; on(event: string, listener: () => void): void }) => {
            const next = () => client.setBody(JSON.stringify(bodyOf(++seed)))
            next()
            client.on('response', next)
          },
        })
        if (warmUp) return
        const answered = load.requests.total - load.non2xx
        cell.rate.push(answered / (context.quick ? 2 : 6))
        cell.p99.push(load.latency.p99)
        cell.refused += load.non2xx
        cell.failed += load.errors + load.timeouts
      })
      const rows = cells
        .filter(({ rate }) => rate.length > 0)
        .map(({ server, connections, rate, p99, refused, failed }): Row & { readonly rate: Sample } => ({
          server,
          connections,
          rate: sampleOf(rate) as Sample,
          p99: sampleOf(p99),
          refused,
          failed,
        }))
      const rateOf = (server: string, connections: number) => rows.find((r) => r.server === server && r.connections === connections)?.rate.median
      const failures = rows.filter((r) => r.server === 'tetrad').reduce((sum, r) => sum + (r.failed as number), 0)
      const refusals = rows.filter((r) => r.server === 'tetrad').reduce((sum, r) => sum + (r.refused as number), 0)
      return {
        floor: 'none is known for a whole server; the throughput benchmark has the limit of the engine',
        method: `models/tiny (bf16, 2 ranks) and a Llama of as many parameters (f16, 8 sequences, one thread: with two it was many times slower on two cores): prompts of 16 tokens without a common prefix, ${TOKENS_OUT} out, greedy. Tetrad runs 32 requests and queues ${MAX_WAITING}. It answers more with 429 at once, which does not count as answered.`,
        columns: [
          { key: 'connections', label: 'connections' },
          { key: 'server', label: 'server' },
          { key: 'rate', label: 'answers', unit: '1/s' },
          { key: 'p99', label: 'p99 of all answers', unit: 'ms', digits: 0 },
          { key: 'refused', label: '429s' },
          { key: 'failed', label: 'errors and timeouts' },
        ],
        rows,
        pictures: [
          {
            name: '',
            title: 'Requests answered a second, by connections',
            kind: 'lines',
            x: { title: 'connections', log: true, ticks: counts },
            y: { title: 'requests a second' },
            ...(refusals > 0 && {
              note: `Tetrad refuses requests beyond ${MAX_WAITING} waiting ones: ${refusals} answers were 429, and were sent again at once. They take time, and are not counted.`,
            }),
            points: rows.map(({ server, connections, rate }) => ({
              x: connections as number,
              ...plotted(rate),
              series: server as string,
            })),
          },
        ],
        answer: [
          ...counts.flatMap((n) => {
            const [mine, other] = [rateOf('tetrad', n), rateOf('llama.cpp', n)]
            return mine !== undefined && other !== undefined
              ? [
                  `${n} connections: Tetrad answers ${mine.toFixed(1)} requests a second, llama.cpp ${other.toFixed(1)} (${(mine / other).toFixed(2)} times).`,
                ]
              : []
          }),
          failures === 0 ? 'No request to Tetrad failed.' : `${failures} requests to Tetrad failed.`,
        ],
      }
    } finally {
      for (const child of [llama, ours]) {
        child.kill('SIGKILL')
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      }
    }
  },
}

function bodyOf(seed: number): object {
  const prompt = Array.from({ length: 16 }, (_, i) => 300 + ((seed * 31 + i * 7) % 3000))
  return { model: 'tiny', prompt, max_tokens: TOKENS_OUT, temperature: 0, ignore_eos: true }
}

async function portOf(child: ChildProcess): Promise<number> {
  const [line] = (await Promise.race([
    once(child.stdout as NonNullable<typeof child.stdout>, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error('a server did not start'))),
  ])) as [Buffer]
  return (JSON.parse(line.toString()) as { port: number }).port
}
