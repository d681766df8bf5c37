#!/usr/bin/env bash
# Guess:  a comlink call to a worker that ends rejects, since the worker's 'exit' event is known.
# Seen:   comlink 4.4.2 over a worker thread of Node: the call stays pending for good, and so does every
#         later call. Nothing rejects. A caller needs a deadline, or must watch 'exit' itself.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund comlink@4.4.2 >/dev/null
cat > worker.mjs <<'JS'
import { parentPort } from "node:worker_threads"
import * as Comlink from "comlink"
import endpoint from "comlink/dist/esm/node-adapter.mjs"
class TypedError extends RangeError { code = "OUT_OF_RANGE"; limit = 8 }
Comlink.expose({
  end: () => process.exit(0),
  fail: () => { throw new TypedError("too many", { cause: new Error("why") }) },
}, endpoint(parentPort))
JS
cat > run.mjs <<'JS'
import assert from 'node:assert'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import * as Comlink from 'comlink'
import endpoint from 'comlink/dist/esm/node-adapter.mjs'
const worker = new Worker('./worker.mjs')
const api = Comlink.wrap(endpoint(worker))
const states = { during: 'pending', after: 'pending' }
const watch = (name, call) => call.then(() => { states[name] = 'resolved' }, () => { states[name] = 'rejected' })
watch('during', api.end())
await once(worker, 'exit')
watch('after', api.fail())
await new Promise((resolve) => setTimeout(resolve, 2000))
console.log(states)
assert.deepEqual(states, { during: 'pending', after: 'pending' })
JS
node run.mjs
