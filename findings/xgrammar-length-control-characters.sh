#!/usr/bin/env bash
# Guess:  what a grammar of a JSON schema takes is JSON.
# Seen:   npm @mlc-ai/web-xgrammar 0.1.27: a string with minLength or maxLength may hold control characters
#         as they are, which JSON.parse refuses. Without a length they are excluded, as JSON says.
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
const text = '"a\tb"'
let parses = true
try {
  JSON.parse(text)
} catch {
  parses = false
}
const takes = async (schema) => Testings.isGrammarAcceptString(await Grammar.fromJSONSchema(JSON.stringify(schema)), text)
const [plain, bounded] = [await takes({ type: 'string' }), await takes({ type: 'string', minLength: 1, maxLength: 9 })]
console.log(`a string with a tab in it: JSON.parse takes it: ${parses}; the grammar of {type: string}: ${plain}; with minLength and maxLength: ${bounded}`)
process.exit(!parses && !plain && bounded ? 0 : 1)
JS
node run.mjs
