#!/usr/bin/env bash
# Guess:  createGrammarForJsonSchema of npm node-llama-cpp holds a model to {anyOf: [...]}, or refuses the keyword.
# Seen:   node-llama-cpp 3.22.1 makes of anyOf and allOf, without a warning, a grammar that lets a model write
#         nothing but null, alone and within a property; parse() then throws "Unknown immutable type undefined" for
#         any text. oneOf works.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --omit=optional --no-audit --no-fund node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1 >/dev/null
cat > run.mjs <<'JS'
import { getLlama } from 'node-llama-cpp'
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' })
const members = [{ type: 'integer' }, { type: 'string' }]
const rootOf = (grammar) => grammar.grammar.split('\n')[0]
const any = await llama.createGrammarForJsonSchema({ anyOf: members })
const all = await llama.createGrammarForJsonSchema({ allOf: [members[0]] })
const inside = await llama.createGrammarForJsonSchema({ type: 'object', properties: { a: { anyOf: members } } })
const one = await llama.createGrammarForJsonSchema({ oneOf: members })
let thrown
try { any.parse('7') } catch (error) { thrown = error.message }
console.log(`anyOf:          ${rootOf(any)}\nallOf:          ${rootOf(all)}\nin a property:  ${rootOf(inside)}\noneOf:          ${rootOf(one)}\nparse('7'):     ${thrown}; with oneOf ${one.parse('7')}`)
const seen = /^root ::= null-rule /.test(rootOf(any)) && /^root ::= null-rule /.test(rootOf(all)) && /"\\"a\\"" ":" \[ \]\? null-rule /.test(rootOf(inside))
process.exit(seen && !rootOf(one).includes('null') && thrown === 'Unknown immutable type undefined' && one.parse('7') === 7 ? 0 : 1)
JS
node run.mjs
