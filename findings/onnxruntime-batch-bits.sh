#!/usr/bin/env bash
# Guess:  row 0 of x @ W has the same bits whether x has one row or more: it is the same sum.
# Seen:   onnxruntime-node 1.30.0, CPU, x86-64, float32: about 90 % of the values of row 0 differ between
#         one row and two rows (a matrix-vector kernel against a matrix-matrix kernel), and agree from two
#         rows on. So a batch of one and a batch of two give different logits. The thread count changes
#         nothing between two and 64 rows.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund onnxruntime-node@1.30.0 >/dev/null
cat > run.mjs <<'JS'
import assert from 'node:assert'
import ort from 'onnxruntime-node'
// An ONNX model of one MatMul, y[m, N] = x[m, K] w[K, N], as protobuf bytes.
const varint = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...varint(n >>> 7)])
const bytes = (no, content) => [...varint((no << 3) | 2), ...varint(content.length), ...content]
const number = (no, value) => [...varint(no << 3), ...varint(value)]
const text = (no, value) => bytes(no, [...Buffer.from(value)])
const dimension = (d) => bytes(1, typeof d === 'number' ? number(1, d) : text(2, d))
const value = (name, dims) => [...text(1, name), ...bytes(2, bytes(1, [...number(1, 1), ...bytes(2, dims.flatMap(dimension))]))]
function matmul(K, N) {
  const node = [...text(1, 'x'), ...text(1, 'w'), ...text(2, 'y'), ...text(4, 'MatMul')]
  const io = [...bytes(11, value('x', ['m', K])), ...bytes(11, value('w', [K, N])), ...bytes(12, value('y', ['m', N]))]
  return Uint8Array.from([...number(1, 8), ...bytes(7, [...bytes(1, node), ...text(2, 'g'), ...io]), ...bytes(8, number(2, 17))])
}
function random(n, seed) {
  let s = seed
  return Float32Array.from({ length: n }, () => (s = (Math.imul(s, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1)
}
const [K, N] = [1024, 512]
const weights = new ort.Tensor('float32', random(K * N, 7), [K, N])
const x = random(64 * K, 3)
const rows = {}
for (const threads of [1, 2]) {
  const session = await ort.InferenceSession.create(matmul(K, N), { intraOpNumThreads: threads })
  for (const m of [1, 2, 64]) {
    const { y } = await session.run({ x: new ort.Tensor('float32', x.slice(0, m * K), [m, K]), w: weights })
    rows[`${m}/${threads}`] = y.data.slice(0, N)
  }
}
const differ = (a, b) => rows[a].reduce((n, v, i) => n + (Object.is(v, rows[b][i]) ? 0 : 1), 0)
const seen = { oneAndTwo: differ('1/1', '2/1'), twoAnd64: differ('2/1', '64/1'), threads: differ('64/1', '64/2') }
console.log(`of ${N} values of row 0 differ:`, seen)
assert.ok(seen.oneAndTwo > N / 2)
assert.deepEqual([seen.twoAnd64, seen.threads], [0, 0])
JS
node run.mjs
