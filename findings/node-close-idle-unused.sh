#!/usr/bin/env bash
# Guess:  a server that is closed, idle connections included (server.close() and closeIdleConnections()),
#         ends at once when no request is running.
# Seen:   Node 20.20.2 (http): a connection that has sent nothing yet is not idle for Node; close() waits for
#         it, by default up to a minute (headersTimeout). Node's own fetch opens one: after a response whose
#         stream was aborted it connects again, without a request to send. So one client that leaves a
#         stream holds up the end of a server, here by 2.5 s, until the client gives the connection up.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
cat > run.mjs <<'JS'
import assert from 'node:assert'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
async function msToClose(visit) {
  const server = createServer((_, response) => {
    response.write('a part')
    const timer = setInterval(() => response.write('a part'), 20)
    response.once('close', () => clearInterval(timer))
  })
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
  let connections = 0
  server.on('connection', () => connections++)
  await visit(server.address().port)
  await setTimeout(500)
  const start = performance.now()
  const closed = new Promise((done) => server.close(done))
  server.closeIdleConnections()
  const ended = await Promise.race([closed.then(() => true), setTimeout(5000, false)])
  server.closeAllConnections()
  return { ms: Math.round(performance.now() - start), ended, connections }
}
const seen = {
  nobody: await msToClose(async () => {}),
  silent: await msToClose((port) => new Promise((done) => connect(port, '127.0.0.1', done).on('error', () => {}))),
  left: await msToClose(async (port) => {
    const controller = new AbortController()
    await fetch(`http://127.0.0.1:${port}/`, { signal: controller.signal })
    controller.abort()
  }),
}
console.log(seen)
assert.ok(seen.nobody.ended)
assert.ok(!seen.silent.ended)
assert.ok(seen.left.ms > 1000 && seen.left.connections === 2)
process.exit()
JS
node run.mjs
