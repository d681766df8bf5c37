#!/usr/bin/env bash
# Guess:  an error that is thrown in a comlink object arrives as a structured clone would bring it: a
#         RangeError with its cause, and perhaps its own fields.
# Seen:   comlink 4.4.2: only message, name and stack arrive. The object is a plain Error (instanceof
#         RangeError is false, though its name says the class), and `code`, own fields and `cause` are
#         gone. structuredClone keeps the class and the cause. A typed error must be sent as a value.
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
import { Worker } from 'node:worker_threads'
import * as Comlink from 'comlink'
import endpoint from 'comlink/dist/esm/node-adapter.mjs'
const worker = new Worker('./worker.mjs')
const error = await Comlink.wrap(endpoint(worker)).fail().catch((e) => e)
const clone = structuredClone(new RangeError('too many', { cause: new Error('why') }))
const seen = { message: error.message, rangeError: error instanceof RangeError, code: error.code, limit: error.limit, cause: error.cause }
console.log(seen, { clone: clone instanceof RangeError, cause: clone.cause?.message })
assert.deepEqual(seen, { message: 'too many', rangeError: false, code: undefined, limit: undefined, cause: undefined })
assert.ok(clone instanceof RangeError && clone.cause.message === 'why')
await worker.terminate()
JS
node run.mjs
