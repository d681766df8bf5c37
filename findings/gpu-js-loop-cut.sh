#!/usr/bin/env bash
# Guess:  a gpu.js kernel runs `for (let i = 0; i < n; i++)` n times, as JavaScript does.
# Seen:   gpu.js 2.24.1, CPU mode: with the bound in an argument the loop ends after 1,000 rounds,
#         without an error or a warning. With a literal bound it runs 5,000 times. The option
#         loopMaxIterations (default 1,000) decides. A dot product longer than 1,000 is wrong.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund gpu.js@2.24.1 >/dev/null
cat > run.cjs <<'JS'
const assert = require('node:assert')
const { GPU } = require('gpu.js')
const gpu = new GPU({ mode: 'cpu' })
const count = function (n) { let s = 0; for (let i = 0; i < n; i++) s += 1; return s }
const literal = function () { let s = 0; for (let i = 0; i < 5000; i++) s += 1; return s }
const byArgument = gpu.createKernel(count, { output: [1] })(5000)[0]
const byLiteral = gpu.createKernel(literal, { output: [1] })()[0]
const allowed = gpu.createKernel(count, { output: [1], loopMaxIterations: 10000 })(5000)[0]
console.log({ byArgument, byLiteral, allowed })
assert.deepEqual([byArgument, byLiteral, allowed], [1000, 5000, 5000])
JS
node run.cjs
