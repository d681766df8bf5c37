// What the engine imports of Node's modules. Files are those that fetchFiles has fetched, by path.
const fetched = new Map()

export async function fetchFiles(paths, onFile = () => {}) {
  let done = 0
  await Promise.all(
    paths.map(async (path) => {
      const response = await fetch(path)
      if (!response.ok) throw new Error(`${path}: ${response.status}`)
      fetched.set(path, new Uint8Array(await response.arrayBuffer()))
      onFile(++done, paths.length)
    }),
  )
}

const pathOf = (path) =>
  path instanceof URL ? path.pathname : String(path).startsWith('file:') || String(path).startsWith('http') ? new URL(path).pathname : String(path)

function content(path) {
  const bytes = fetched.get(pathOf(path))
  if (bytes) return bytes
  throw Object.assign(new Error(`ENOENT: no such file, open '${pathOf(path)}'`), { code: 'ENOENT' })
}

const hasFolder = (path) => [...fetched.keys()].some((name) => name.startsWith(`${pathOf(path).replace(/\/$/, '')}/`))
const asText = (bytes, encoding) => (encoding ? new TextDecoder().decode(bytes) : bytes)

// fs
export const readFileSync = (path, encoding) => asText(content(path), encoding)
export const existsSync = (path) => fetched.has(pathOf(path)) || hasFolder(path)
export const readdirSync = () => []
export const readdir = async (path) => {
  const folder = `${pathOf(path).replace(/\/$/, '')}/`
  return [...fetched.keys()].filter((name) => name.startsWith(folder)).map((name) => name.slice(folder.length).split('/')[0])
}
export const readFile = async (path, encoding) => asText(content(path), encoding)
export const access = async (path) => void content(path)
export const stat = async (path) => {
  if (hasFolder(path)) return { isDirectory: () => true, isFile: () => false, size: 0 }
  return { isDirectory: () => false, isFile: () => true, size: content(path).length, mtimeMs: 0, ino: 0 }
}
export const open = async (path) => {
  const bytes = content(path)
  return {
    stat: async () => ({ size: bytes.length, mtimeMs: 0, ino: 0 }),
    read: async (target, offset, length, position) => {
      const part = bytes.subarray(position, position + length)
      target.set(part, offset)
      return { bytesRead: part.length }
    },
    close: async () => {},
  }
}
// path, url
export const join = (...parts) => parts.join('/').replace(/\/+/g, '/')
export const basename = (path) => String(path).split('/').at(-1)
export const fileURLToPath = pathOf
// os, v8, events, crypto
export const availableParallelism = () => navigator.hardwareConcurrency
export const setFlagsFromString = () => {}
export const setMaxListeners = () => {}
export class EventEmitter {
  #listeners = new Map()
  on(name, listener) {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener])
  }
  off(name, listener) {
    this.#listeners.set(
      name,
      (this.#listeners.get(name) ?? []).filter((other) => other !== listener),
    )
  }
  emit(name, ...values) {
    for (const listener of this.#listeners.get(name) ?? []) listener(...values)
  }
}
export const randomBytes = (n) => {
  const bytes = Buffer.from(crypto.getRandomValues(new Uint8Array(n)))
  // npm buffer has no base64url.
  return Object.assign(bytes, { toString: (encoding) => Buffer.prototype.toString.call(bytes, encoding === 'base64url' ? 'hex' : encoding) })
}
// timers/promises
export const setTimeout = (ms, value, { signal } = {}) =>
  new Promise((resolve, reject) => {
    const timer = globalThis.setTimeout(() => resolve(value), ms)
    signal?.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(signal.reason)
    })
  })
const turns = new MessageChannel()
const waiting = []
turns.port1.onmessage = () => waiting.shift()?.()
export const setImmediate = (value) =>
  new Promise((resolve) => {
    waiting.push(() => resolve(value))
    turns.port2.postMessage(0)
  })
// worker_threads
const { MessageChannel: Channel } = globalThis

export { Channel as MessageChannel }

// What only files of items, snapshots and Hub downloads use.
const absent = (what) => () => {
  throw new Error(`a browser does not have ${what}`)
}
export const createReadStream = absent('streams of files')
export const createInterface = absent('lines of files')
export const createHash = absent('hashes in steps')
export const rename = absent('files')
export const rm = absent('files')
export const dirname = (path) => String(path).replace(/\/[^/]*$/, '')
