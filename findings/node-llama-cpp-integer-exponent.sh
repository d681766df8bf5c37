#!/usr/bin/env bash
# Guess:  the grammar that npm node-llama-cpp makes of {type: 'integer'} lets a model write integers only.
# Seen:   node-llama-cpp 3.22.1: its rule ends in an optional exponent of either sign, so a model may write 5e-1;
#         the library's own parse() then throws that this is no integer. An answer that kept to the grammar from the
#         first token to the last is lost.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --omit=optional --no-audit --no-fund node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1 >/dev/null
cat > run.mjs <<'JS'
import { getLlama } from 'node-llama-cpp'
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' })
const grammar = await llama.createGrammarForJsonSchema({ type: 'integer' })
const rule = grammar.grammar.split('\n').find((line) => line.startsWith('integer-number-rule ::='))
let thrown
try { grammar.parse('5e-1') } catch (error) { thrown = error.message }
console.log(`${rule}\nparse('5e-1'): ${thrown}\nparse('5e1'):  ${grammar.parse('5e1')}`)
process.exit(rule.includes('([eE] [-+]? ("0" | [1-9] [0-9]{0,15}))?') && /Expected type "integer" but got "number"/.test(thrown) ? 0 : 1)
JS
node run.mjs
