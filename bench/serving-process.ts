// The server of the serving benchmark, in a process of its own. Prints its port as JSON.
// Usage: node dist/bench/serving-process.js <model dir> <ranks> <max waiting requests>
import { Engine } from '../src/index.js'
import { createServer } from '../src/serve/server.js'
import { PLAIN } from '../src/tokenizer/chat-template.js'

const [dir = '', ranks = '2', waiting = '100'] = process.argv.slice(2)
const engine = await Engine.load(dir, { ranks: Number(ranks) as 1, maxRunning: 32, maxQueue: Number(waiting), cacheTokens: 8192 })
const { app } = createServer(new Map([['tiny', { id: 'tiny', engine, template: PLAIN, created: 0 }]]))
console.log(JSON.stringify({ port: Number(new URL(await app.listen({ port: 0, host: '127.0.0.1' })).port) }))
