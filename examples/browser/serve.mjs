// Builds the page and serves it, with the headers that shared memory needs: node examples/browser/serve.mjs [port]
import { createReadStream, mkdtempSync, rmSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { extname, join, normalize, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { convert } from '../../dist/src/index.js'
import { bundle } from './build.mjs'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
}
/** What the page may fetch. */
const SERVED = /^\/(examples\/browser\/index\.html|dist\/browser\/[^/]+\.js|dist\/kernels\/wasm\/[^/]+\.wasm|package\.json)$/
const MODEL = /^\/models\/tiny-packed\/([^/]+)$/

/** models/tiny as one file of packed weights, in a folder of its own. */
async function packed() {
  const folder = mkdtempSync(join(tmpdir(), 'tetrad-browser-'))
  await convert(`${ROOT}models/tiny`, join(folder, 'model'), { weights: 'bf16' })
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'model')
}

/** A listening server. more: further files, by the path that a page asks for. Throws what listen throws. */
export async function serve(port, more = new Map()) {
  const model = await packed()
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    const path = pathname === '/' ? '/examples/browser/index.html' : normalize(pathname)
    // Without these two a page has no SharedArrayBuffer.
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp')
    const ofModel = MODEL.exec(path)?.[1]
    const file = more.get(path) ?? (ofModel ? join(model, ofModel) : ROOT + path.slice(1).replaceAll('/', sep))
    const size = more.has(path) || ofModel || SERVED.test(path) ? statSync(file, { throwIfNoEntry: false })?.size : undefined
    if (size === undefined) return void response.writeHead(404).end()
    response.writeHead(200, { 'Content-Type': TYPES[extname(path)] ?? 'application/octet-stream', 'Content-Length': size })
    createReadStream(file).pipe(response)
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server))
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await bundle()
  const server = await serve(Number(process.argv[2] ?? 8088))
  console.log(`http://127.0.0.1:${server.address().port}/`)
}
