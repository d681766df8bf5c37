#!/usr/bin/env bash
# Guess:  a body above fastify's bodyLimit is answered with 413.
# Seen:   fastify 5.12.8, Node 20.20.2: the answer is sent and the connection closed before the body was
#         read, so the system resets it. A client that still writes (Node's fetch, 64 MiB, loopback) gets
#         EPIPE or ECONNRESET instead of the answer in 2 to 5 of 60 requests.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund fastify@5.12.8 >/dev/null
cat > server.mjs <<'JS'
import fastify from 'fastify'
const app = fastify({ bodyLimit: 8 << 20 })
app.post('/', async () => 'read')
console.log(await app.listen({ port: 0, host: '127.0.0.1' }))
JS
cat > run.mjs <<'JS'
import assert from 'node:assert'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
const server = spawn(process.execPath, ['server.mjs'])
const [line] = await once(server.stdout, 'data')
const seen = {}
const lost = () => (seen.EPIPE ?? 0) + (seen.ECONNRESET ?? 0)
for (let i = 0; i < 60 || (i < 600 && lost() === 0); i++) {
  const what = await fetch(line.toString().trim(), { method: 'POST', headers: { 'content-type': 'application/json' }, body: ' '.repeat(64 << 20) }).then(
    async (response) => (await response.text(), response.status),
    (error) => error.cause?.code,
  )
  seen[what] = (seen[what] ?? 0) + 1
}
server.kill()
console.log(seen)
assert.ok(lost() > 0)
JS
node run.mjs
