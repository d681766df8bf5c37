#!/usr/bin/env bash
# Guess:  MessagePack has float64, so a number comes back from msgpackr with the same bits.
# Seen:   msgpackr 2.1.4: -0 comes back as 0 (it is packed as an integer), alone, in arrays and in objects.
#         @msgpack/msgpack 3.1.2 does the same. Values in a Float64Array (with moreTypes) keep their sign.
#         Whoever compares results bit for bit must send typed arrays, not numbers.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund msgpackr@2.1.4 @msgpack/msgpack@3.1.2 >/dev/null
cat > run.mjs <<'JS'
import assert from 'node:assert'
import { decode, encode } from '@msgpack/msgpack'
import { Packr } from 'msgpackr'
const packr = new Packr({ moreTypes: true })
const back = (value) => packr.unpack(packr.pack(value))
const kept = {
  number: Object.is(back(-0), -0),
  array: Object.is(back([-0])[0], -0),
  object: Object.is(back({ x: -0 }).x, -0),
  typedArray: Object.is(back(new Float64Array([-0]))[0], -0),
  otherLibrary: Object.is(decode(encode(-0)), -0),
}
console.log(kept)
assert.deepEqual(kept, { number: false, array: false, object: false, typedArray: true, otherLibrary: false })
JS
node run.mjs
