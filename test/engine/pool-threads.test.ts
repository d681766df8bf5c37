import test from 'ava'
import { program } from '../support/program.js'

const MODULE = JSON.stringify(new URL('../../src/engine/ranks/pool-threads.js', import.meta.url).href)

test('ending a pool waits for the first message of a thread that nothing else keeps the process alive for', async (t) => {
  // As a thread of piscina is after it has answered: its port is not referenced, and its first message is on the way.
  const out = await program(`
    import { EventEmitter } from 'node:events'
    import { endingPool } from ${MODULE}
    const thread = new EventEmitter()
    const end = endingPool({ threads: [thread], options: {}, destroy: async () => console.log('destroyed') })
    setTimeout(() => { console.log('loaded'); thread.emit('message') }, 50).unref()
    await end()
    console.log('ended')`)
  t.is(out, 'loaded\ndestroyed\nended')
})
