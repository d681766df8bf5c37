// Silences that are longer than the deadlines of a cluster.
import { setTimeout } from 'node:timers/promises'
import test from 'ava'
import { Engine } from '../../src/index.js'
import { TINY } from '../support/fixtures.js'
import { cuttable, natsServer, natsTest, replica } from '../support/nats.js'
import { front, streamsAs } from '../support/nats-front.js'
import { until } from '../support/until.js'

const engine = await Engine.load(TINY, { ranks: 1, maxRunning: 8, cacheTokens: 8192 })
test.after.always(() => engine.close())
const stream = streamsAs(engine)

natsTest('a front whose link is cut for longer than its replica waits: its requests are replayed, and none hangs', async (t) => {
  t.timeout(240_000)
  const server = await natsServer(t)
  await replica(t, server.url)
  const way = await cuttable(t, server.port)
  const { client, model, joined } = await front(t, way.url, { deadlineMs: 60_000 })
  await stream(t, client, async () => {
    way.cut()
    // A replica gives a request up 20 s after it heard of its front last.
    await setTimeout(26_000)
    way.mend()
  })
  t.is(joined.models.size, 1)
  await until(() => model().stats().running === 0)
})
