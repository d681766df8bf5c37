// What the engine expects of Node's globals.
import { Buffer } from 'buffer'

globalThis.Buffer ??= Buffer
globalThis.process ??= {
  version: 'browser',
  versions: {},
  platform: 'browser',
  arch: 'wasm32',
  env: {},
  argv: [],
  execArgv: [],
  emitWarning: (text) => console.warn(text),
  // A page is not told what it may take.
  availableMemory: () => 2 ** 31,
  on: () => {},
  once: () => {},
}
// Ports keep no page alive.
for (const name of ['ref', 'unref']) MessagePort.prototype[name] ??= () => {}
