// A server of the Hub's API over real files: revisions, listings, and files with ranges, LFS files on a second address as the Hub has its
// CDN. It cuts, stalls and lies where a test says so.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { posix } from 'node:path'

export interface HubRequest {
  readonly method: string
  readonly path: string
  readonly range: string | undefined
  readonly authorization: string | undefined
}

export interface LocalHub {
  /** HF_ENDPOINT. */
  readonly url: string
  readonly requests: HubRequest[]
  /** What the address of the CDN was asked. */
  readonly cdnRequests: HubRequest[]
  readonly files: Map<string, Buffer>
  /** Of `main`. */
  commit: string
  /** Answers a request before the Hub does; true: it did. */
  intercept: (request: HubRequest, response: ServerResponse) => boolean
  /** Bytes of a file's body after which its connection is cut, each once. */
  readonly cuts: number[]
  /** Added to the listing of a folder. */
  extraEntries: readonly Record<string, unknown>[]
  close(): Promise<void>
}

/** As git stores it. */
export function gitHash(bytes: Buffer): string {
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

const isLfs = (path: string) => /\.(bin|safetensors|gguf)$/.test(path)

/** `repo`: owner/name. `files`: by path in the repository. */
export async function localHub(repo: string, files: ReadonlyMap<string, Buffer>): Promise<LocalHub> {
  const requests: HubRequest[] = []
  const cdnRequests: HubRequest[] = []
  const cuts: number[] = []
  const seen = ({ method = '', url = '', headers }: IncomingMessage): HubRequest => ({
    method,
    path: decodeURI(url),
    range: headers.range,
    authorization: headers.authorization,
  })
  const cdn = await listening((request, response) => {
    const asked = seen(request)
    cdnRequests.push(asked)
    if (!hub.intercept(asked, response)) sendFile(hub.files.get(asked.path.slice('/cdn/'.length)), asked, response, cuts)
  })
  const server = await listening((request, response) => {
    const asked = seen(request)
    requests.push(asked)
    if (!hub.intercept(asked, response)) answer(repo, hub, asked, response, addressOf(cdn))
  })
  const hub: LocalHub = {
    url: addressOf(server),
    requests,
    cdnRequests,
    files: new Map(files),
    commit: 'c0ffee'.repeat(6).padEnd(40, '0'),
    intercept: () => false,
    cuts,
    extraEntries: [],
    close: async () => {
      for (const each of [server, cdn]) {
        each.closeAllConnections()
        each.close()
      }
    },
  }
  return hub
}

async function listening(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> {
  const server = createServer(handle).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

const addressOf = (server: Server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`

/** True, as an interception that answered. */
export function refuse(response: ServerResponse, status: number, code?: string, message?: string): true {
  response.writeHead(status, { ...(code && { 'x-error-code': code }), ...(message && { 'x-error-message': message }) }).end()
  return true
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

function answer(repo: string, hub: LocalHub, { path }: HubRequest, response: ServerResponse, cdn: string): void {
  const api = `/api/models/${repo}`
  const [plain = ''] = path.split('?')
  const known = (revision: string) => revision === 'main' || revision === hub.commit
  if (!plain.startsWith(`${api}/`) && !plain.startsWith(`/${repo}/`)) return void refuse(response, 401, 'RepoNotFound', 'Repository not found')
  const info = new RegExp(`^${api}/revision/(.+)$`).exec(plain)
  if (info) {
    return known(info[1] as string)
      ? json(response, { _id: '1', id: repo, sha: hub.commit, lastModified: '2026-01-01' })
      : void refuse(response, 404, 'RevisionNotFound')
  }
  const tree = new RegExp(`^${api}/tree/([^/]+)(?:/(.*))?$`).exec(plain)
  if (tree) {
    const folder = tree[2] ?? ''
    const entries = [...hub.files].filter(([file]) => (posix.dirname(file) === '.' ? '' : posix.dirname(file)) === folder)
    if (!known(tree[1] as string)) return void refuse(response, 404, 'RevisionNotFound')
    if (entries.length === 0) return void refuse(response, 404, 'EntryNotFound')
    return json(response, [
      ...hub.extraEntries,
      ...entries.map(([file, bytes]) => ({
        type: 'file',
        path: file,
        size: bytes.length,
        oid: gitHash(bytes),
        ...(isLfs(file) && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
      })),
    ])
  }
  const resolve = new RegExp(`^/${repo}/resolve/([^/]+)/(.*)$`).exec(plain)
  const file = resolve?.[2] ?? ''
  const bytes = hub.files.get(file)
  if (!resolve || !bytes) return void refuse(response, 404, 'EntryNotFound')
  if (isLfs(file)) return void response.writeHead(302, { location: `${cdn}/cdn/${file}` }).end()
  sendFile(bytes, hub.requests.at(-1) as HubRequest, response, hub.cuts)
}

function sendFile(bytes: Buffer | undefined, { range }: HubRequest, response: ServerResponse, cuts: number[]): void {
  if (!bytes) return void refuse(response, 404)
  const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  const body = bytes.subarray(from)
  const partial = range === undefined ? {} : { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }
  response.writeHead(range === undefined ? 200 : 206, { 'content-length': body.length, ...partial })
  const cut = cuts.findIndex((at) => at < body.length)
  if (cut < 0) return void response.end(body)
  const [at] = cuts.splice(cut, 1)
  response.write(body.subarray(0, at), () => response.destroy())
}
