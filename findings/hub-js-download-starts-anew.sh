#!/usr/bin/env bash
# Guess:  downloadFileToCacheDir of npm @huggingface/hub, which writes to <hash>.incomplete in Python's cache
#         layout, goes on after a cut where it ended, as Python's huggingface_hub does.
# Seen:   @huggingface/hub 2.17.5 leaves the .incomplete file and asks for the whole file again: no request
#         has a Range header. A cut at 90 % of 10 GB costs 9 GB more.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund @huggingface/hub@2.17.5 >/dev/null
cat > run.mjs <<'JS'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { downloadFileToCacheDir } from '@huggingface/hub'
console.debug = () => {}
const body = Buffer.alloc(4 << 20, 7)
const oid = createHash('sha256').update(body).digest('hex')
const commit = 'c0ffee'.repeat(6).padEnd(40, '0')
const ranges = []
let cut = true
const server = createServer((request, response) => {
  if (request.url.includes('/paths-info/')) {
    const entry = { type: 'file', path: 'w.bin', size: body.length, oid, lfs: { oid, size: body.length, pointerSize: 100 }, lastCommit: { id: commit, title: '', date: '2026-01-01' } }
    return void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify([entry]))
  }
  const range = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '')
  const [from, to] = range ? [Number(range[1]), range[2] ? Number(range[2]) + 1 : body.length] : [0, body.length]
  const headers = { etag: `"${oid}"`, 'accept-ranges': 'bytes', 'content-length': to - from, 'x-repo-commit': commit }
  if (range) headers['content-range'] = `bytes ${from}-${to - 1}/${body.length}`
  response.writeHead(range ? 206 : 200, headers)
  // A question for the size alone is no download.
  if (request.method === 'HEAD' || (range && to - from <= 1)) return void response.end(body.subarray(from, to))
  ranges.push(request.headers.range ?? 'the whole file')
  if (!cut) return void response.end(body.subarray(from, to))
  cut = false
  response.write(body.subarray(from, from + (3 << 20)), () => setTimeout(() => response.destroy(), 200))
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const get = () => downloadFileToCacheDir({ repo: 'some/model', path: 'w.bin', hubUrl: `http://127.0.0.1:${server.address().port}`, cacheDir: './cache' })
const first = await get().then(() => 'complete', () => 'cut')
const left = `./cache/models--some--model/blobs/${oid}.incomplete`
const kept = existsSync(left) ? statSync(left).size : 0
await get()
console.log(`first download: ${first}, ${kept} of ${body.length} bytes kept; asked for: ${ranges.join(', then ')}`)
server.close()
server.closeAllConnections()
process.exit(first === 'cut' && kept > 0 && ranges.length === 2 && ranges.every((range) => range === 'the whole file') ? 0 : 1)
JS
node run.mjs
