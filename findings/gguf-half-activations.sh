#!/usr/bin/env bash
# Guess:  weights of a GGUF file that float16 and bfloat16 hold exactly give the same output as f32, f16 and bf16
#         tensors, up to the last bits: llama.cpp widens weights and multiplies them with float32 activations.
# Seen:   llama.cpp (npm node-llama-cpp 3.22.1, CPU) rounds the activations to the type of the weights. The same
#         numbers give log-probabilities that differ by 0.02 (f16) and 0.05 (bf16) from the f32 file, and where an
#         activation passes 65504, which float32 holds, the f16 file answers NaN for every token, without an error.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --ignore-scripts --omit=optional --no-audit --no-fund node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1 >/dev/null
cat > run.mjs <<'JS'
import { writeFileSync } from 'node:fs'
import { getLlama } from 'node-llama-cpp'
const E = 64, F = 64, VOCAB = 320, HEADS = 2
const u32 = (n) => Buffer.from(Uint32Array.of(n).buffer), u64 = (n) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer)
const text = (s) => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)])
const number = (k, n) => Buffer.concat([text(k), u32(4), u32(n)]), string = (k, s) => Buffer.concat([text(k), u32(8), text(s)])
const array = (k, type, items) => Buffer.concat([text(k), u32(9), u32(type), u64(items.length), ...items])
const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
const byteToken = (b) => printable(b) ? String.fromCodePoint(b) : String.fromCodePoint(256 + [...Array(b).keys()].filter((x) => !printable(x)).length)
const tokens = [...Array(VOCAB).keys()].map((i) => text(i < 256 ? byteToken(i) : `token${i}`))
const metadata = [string('general.architecture', 'llama'), number('llama.context_length', 64), number('llama.embedding_length', E), number('llama.block_count', 1),
  number('llama.feed_forward_length', F), number('llama.attention.head_count', HEADS), number('llama.attention.head_count_kv', HEADS), number('llama.rope.dimension_count', E / HEADS),
  number('llama.vocab_size', VOCAB), Buffer.concat([text('llama.attention.layer_norm_rms_epsilon'), u32(6), Buffer.from(Float32Array.of(1e-6).buffer)]),
  string('tokenizer.ggml.model', 'gpt2'), string('tokenizer.ggml.pre', 'gpt-2'), array('tokenizer.ggml.tokens', 8, tokens), array('tokenizer.ggml.token_type', 5, tokens.map(() => u32(1))),
  array('tokenizer.ggml.merges', 8, [text('t o')]), number('tokenizer.ggml.bos_token_id', VOCAB - 1), number('tokenizer.ggml.eos_token_id', VOCAB - 1)]
const bits = new DataView(new ArrayBuffer(4))
const bf16 = (x) => (bits.setFloat32(0, x), bits.getUint16(0))
// Of multiples of 1/64 below 2: exact in float16 and in bfloat16.
const f16 = (x) => { if (x === 0) return 0; const s = x < 0 ? 0x8000 : 0, a = Math.abs(x), e = Math.floor(Math.log2(a)); return s | ((e + 15) << 10) | ((a / 2 ** e - 1) * 1024) }
/** normWeight: of the norm before the MLP; the products after it grow with its square. */
function write(path, type, normWeight) {
  let seed = 7
  const value = () => ((seed = (seed * 1103515245 + 12345) % 2147483648), (((seed >> 8) % 128) - 64) / 64)
  const id = { f32: 0, f16: 1, bf16: 30 }[type]
  const matrix = (name, inputs, outputs) => ({ name, shape: [inputs, outputs], id, values: Array.from({ length: inputs * outputs }, () => value()) })
  const norm = (name, v = 1) => ({ name, shape: [E], id: 0, values: Array(E).fill(v) })
  const all = [matrix('token_embd.weight', E, VOCAB), norm('blk.0.attn_norm.weight'), ...['q', 'k', 'v', 'output'].map((w) => matrix(`blk.0.attn_${w}.weight`, E, E)),
    norm('blk.0.ffn_norm.weight', normWeight), matrix('blk.0.ffn_gate.weight', E, F), matrix('blk.0.ffn_up.weight', E, F), matrix('blk.0.ffn_down.weight', F, E), norm('output_norm.weight')]
  let offset = 0
  const infos = [], datas = []
  for (const { name, shape, id, values } of all) {
    infos.push(text(name), u32(shape.length), ...shape.map(u64), u32(id), u64(offset))
    const data = id === 0 ? Buffer.from(Float32Array.from(values).buffer) : Buffer.from(Uint16Array.from(values, id === 1 ? f16 : bf16).buffer)
    const padded = Buffer.concat([data, Buffer.alloc((32 - data.length % 32) % 32)])
    datas.push(padded); offset += padded.length
  }
  const head = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(all.length), u64(metadata.length), ...metadata, ...infos])
  writeFileSync(path, Buffer.concat([head, Buffer.alloc((32 - head.length % 32) % 32), ...datas]))
}
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' })
async function logProbabilities(type, normWeight) {
  write(`${type}.gguf`, type, normWeight)
  const model = await llama.loadModel({ modelPath: `${type}.gguf` })
  const context = await model.createContext({ contextSize: 64 })
  const results = await context.getSequence().controlledEvaluate([5, 17, [40, { generateNext: { probabilities: true } }]])
  const { probabilities } = results.at(-1).next
  await model.dispose()
  return Array.from({ length: VOCAB }, (_, i) => Math.log(probabilities.get(i)))
}
const difference = (a, b) => Math.max(...a.map((x, i) => (x > -14 ? Math.abs(x - b[i]) : 0)))
const [whole, half, brain] = [await logProbabilities('f32', 1), await logProbabilities('f16', 1), await logProbabilities('bf16', 1)]
const [wholeLarge, halfLarge] = [await logProbabilities('f32', 400), await logProbabilities('f16', 400)]
console.log(`largest difference of a log-probability from the f32 file: f16 ${difference(whole, half).toFixed(4)}, bf16 ${difference(whole, brain).toFixed(4)}`)
console.log(`with large activations: f32 ${wholeLarge[0].toFixed(4)}, f16 ${halfLarge[0]}`)
const seen = difference(whole, half) > 1e-3 && difference(whole, brain) > 1e-2 && Number.isFinite(wholeLarge[0]) && halfLarge.every(Number.isNaN)
process.exit(seen ? 0 : 1)
JS
node run.mjs
