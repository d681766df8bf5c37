#!/usr/bin/env bash
# Guess:  a grammar that XGrammar makes of a JSON schema holds numbers to their bounds, or refuses the schema.
# Seen:   npm @mlc-ai/web-xgrammar 0.1.27: `minimum` and `exclusiveMinimum` of a number look at nothing but
#         its sign ("1" and "1.99" pass minimum 2), [0, 1] takes 1.5, and `multipleOf` is not looked at.
#         `maximum` alone is too strict instead: 1.0 is no number of at most 1. Integers are held to two
#         bounds, but with `minimum` alone one digit passes under any of 2 to 9.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund @mlc-ai/web-xgrammar@0.1.27 >/dev/null
cat > run.mjs <<'JS'
import { createRequire } from 'node:module'
const require = createRequire(import.meta.url)
// What its bundle expects of Node.
Object.assign(globalThis, { require, __filename: require.resolve('@mlc-ai/web-xgrammar') })
await import('@mlc-ai/web-xgrammar')
const { Grammar, Testings } = globalThis.xgrammar
const CASES = [
  // schema, text, what a validator of JSON Schema says, what the grammar was seen to say
  [{ type: 'number', minimum: 2 }, '5', true, true],
  [{ type: 'number', minimum: 2 }, '1.99', false, true],
  [{ type: 'number', minimum: 2 }, '-7', false, false],
  [{ type: 'number', exclusiveMinimum: 5 }, '1', false, true],
  [{ type: 'number', minimum: 0, maximum: 1 }, '1.5', false, true],
  [{ type: 'number', maximum: 1 }, '1.0', true, false],
  [{ type: 'number', multipleOf: 2 }, '3', false, true],
  [{ type: 'integer', minimum: 2, maximum: 9 }, '1', false, false],
  [{ type: 'integer', minimum: 3 }, '2', false, true],
]
let changed = 0
for (const [schema, text, valid, seen] of CASES) {
  const says = await Testings.isGrammarAcceptString(await Grammar.fromJSONSchema(JSON.stringify(schema)), text)
  console.log(`${JSON.stringify(schema).padEnd(44)} ${text.padEnd(5)} valid: ${valid}, the grammar takes it: ${says}`)
  if (says !== seen) changed++
}
process.exit(changed)
JS
node run.mjs
