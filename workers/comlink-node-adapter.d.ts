// comlink ships this file's types beside another extension, where NodeNext does not look.
declare module 'comlink/dist/esm/node-adapter.mjs' {
  import type { Endpoint } from 'comlink'
  export default function nodeEndpoint(port: import('node:worker_threads').MessagePort): Endpoint
}
