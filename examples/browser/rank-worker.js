// A Web Worker that runs one rank, as a worker thread does in Node.
import './shims/globals.js'
import attach from '../../dist/workers/rank.js'

addEventListener('message', ({ data }) => {
  if (data?.task) void attach(data.task).then(() => postMessage({ done: data.id }))
})
// Piscina's first message says that a thread has loaded.
postMessage({ ready: true })
