// Real threads through real barriers. The worker writes its rank to a slot, passes a barrier, and reads all slots.
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { CONTROL_BYTES } from '../../workers/mailbox/control.js'

const COLLECTIVES = new URL('../../workers/collectives/collectives.js', import.meta.url).href

function threads(count: number, spins: number, body: string, deadlineMs = 10_000): Promise<unknown[]> {
  const control = new SharedArrayBuffer(CONTROL_BYTES)
  const slots = new SharedArrayBuffer(4 * count)
  const source = `
    import { workerData, parentPort } from 'node:worker_threads'
    import { Collectives } from ${JSON.stringify(COLLECTIVES)}
    const { control, slots, rank, count, spins, deadlineMs } = workerData
    const values = new Int32Array(slots)
    const c = new Collectives({ control: new Int32Array(control), rank, ranks: count }, { spins, deadlineMs })
    const result = (() => { ${body} })()
    parentPort.postMessage(result)`
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`)
  return Promise.all(
    Array.from(
      { length: count },
      (_, rank) =>
        new Promise((resolve, reject) => {
          const worker = new Worker(url, { workerData: { control, slots, rank, count, spins, deadlineMs } })
          worker.once('message', resolve)
          worker.once('error', reject)
        }),
    ),
  )
}

for (const [count, spins] of [
  [2, 2000],
  [4, 0],
  [4, 2000],
  [1, 0],
] as const) {
  test(`${count} threads, ${spins} spins: no thread passes a barrier before the last has come, 3000 times`, async (t) => {
    const wrong = await threads(
      count,
      spins,
      `let wrong = 0
       for (let i = 1; i <= 3000; i++) {
         values[rank] = i
         c.barrier('gather of queries')
         for (let r = 0; r < count; r++) if (values[r] < i) wrong++
         c.barrier('all-reduce of the MLP')
       }
       return wrong`,
    )
    t.deepEqual(wrong, Array(count).fill(0))
  })
}

test('a missing thread is named by the waiting ones, with where it was', async (t) => {
  const messages = (await threads(
    3,
    0,
    `if (rank === 1) { c.enter('sampling'); return 'away' }
     try { c.barrier('gather of logits') } catch (e) { return e.name + ': ' + e.message }`,
    2000,
  )) as string[]
  t.is(messages[1], 'away')
  t.is(messages[0], 'RankLate: rank 1 did not come to the gather of logits within 2000 ms; it was last seen at: sampling')
  t.is(messages[2], messages[0])
})

test('an abort wakes whoever waits, and is set by one thread only', async (t) => {
  const results = await threads(
    4,
    0,
    `if (rank >= 2) return c.abort()
     try { c.barrier('gather of logits') } catch (e) { return e.name }`,
  )
  t.deepEqual(results.slice(0, 2), ['StepAborted', 'StepAborted'])
  t.deepEqual(results.slice(2).sort(), [false, true])
})
