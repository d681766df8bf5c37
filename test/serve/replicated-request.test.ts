// Requests over replicas that die, refuse or are full: attempts are counted, and nothing runs for a client that left.
import { spawn } from 'node:child_process'
import test from 'ava'
import { EngineClosedError, ReplicaError } from '../../src/index.js'
import { mainThreadTicks } from '../../src/serve/replicas/replica.js'
import { generateInReplica, type ReplicaHandle, type ReplicaSource, type RequestHandlers } from '../../src/serve/replicas/replicated-request.js'

const completion = {
  text: 'x',
  tokens: [1],
  finishReason: 'length',
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 },
  timings: { ttftMs: 0, decodeMs: 0, tokensPerSecond: 0 },
  seed: 0,
} as const

/** A replica that does the same with every request; counts them. */
function replica(act: (handlers: RequestHandlers) => void): ReplicaHandle & { runs: number; aborts: number } {
  const made = {
    id: 'a',
    load: 0,
    runs: 0,
    aborts: 0,
    run: (_prompts: unknown, _params: unknown, handlers: RequestHandlers) => {
      made.runs++
      setImmediate(() => act(handlers))
      return { abort: () => made.aborts++, pause: () => {} }
    },
  }
  return made
}

const sourceOf = (handle: ReplicaHandle): ReplicaSource => ({ choose: async () => handle })

test('a request with which replicas die is run six times, and given up', async (t) => {
  const dying = replica((handlers) => handlers.onLost())
  const error = await t.throwsAsync(async () => generateInReplica(sourceOf(dying), ['x'], { n: 1 }), { instanceOf: ReplicaError })
  t.is(dying.runs, 6)
  t.regex(error?.message as string, /at most 5 deaths; actual 6/)
})

test('a client that leaves while there is no replica, or while one dies, ends its request: nothing runs for it', async (t) => {
  const abort = new AbortController()
  const none: ReplicaSource = {
    choose: (_prompts, _full, signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(undefined), { once: true })),
  }
  const waiting = generateInReplica(none, ['x', 'y'], { n: 2, signal: abort.signal })
  abort.abort()
  const completions = await waiting
  t.is(completions.length, 4)
  t.true(completions.every(({ finishReason, tokens }) => finishReason === 'abort' && tokens.length === 0))
  const leaving = new AbortController()
  const dying = replica((handlers) => {
    leaving.abort()
    handlers.onLost()
  })
  const [ended] = await generateInReplica(sourceOf(dying), ['x'], { n: 1, signal: leaving.signal })
  t.is(ended?.finishReason, 'abort')
  t.deepEqual([dying.runs, dying.aborts], [1, 1])
})

test('a refused request is tried again, and an error of the source ends it', async (t) => {
  let refusals = 3
  const refusing = replica((handlers) => (refusals-- > 0 ? handlers.onRefused() : handlers.onDone([completion])))
  t.deepEqual(await generateInReplica(sourceOf(refusing), ['x'], { n: 1 }), [completion])
  t.is(refusing.runs, 4)
  const closed: ReplicaSource = {
    choose: () => Promise.reject(new EngineClosedError('ENGINE_CLOSED', { what: 'closed', remedy: 'none' })),
  }
  await t.throwsAsync(async () => generateInReplica(closed, ['x'], { n: 1 }), { instanceOf: EngineClosedError })
})

const onLinux = process.platform === 'linux' ? test : test.skip
onLinux('a busy process is told from one that waits by the time of its main thread', async (t) => {
  const start = (code: string) => {
    const child = spawn(process.execPath, ['-e', code], { stdio: 'ignore' })
    t.teardown(() => child.kill('SIGKILL'))
    return child.pid
  }
  const busy = start('for (;;);')
  const first = mainThreadTicks(busy) ?? 0
  let now = first
  for (let i = 0; i < 2000 && now <= first + 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    now = mainThreadTicks(busy) ?? 0
  }
  t.true(now > first + 5)
  t.is(mainThreadTicks(undefined), undefined)
  t.is(mainThreadTicks(2 ** 30), undefined)
})
