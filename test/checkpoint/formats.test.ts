// The same golden model written in every way that torch and safetensors allow gives the same bits.
import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CheckpointError, convert, Engine } from '../../src/index.js'
import { withFile } from '../../src/model/checkpoint/byte-reader.js'
import { readTorchBin } from '../../src/model/checkpoint/torch-bin.js'
import { FIXTURES } from '../support/fixtures.js'
import { readTensors, safetensors, temporary } from '../support/models.js'
import { full } from '../support/tier.js'
import { type SavedTensor, torchEntries, writeSparse, zip, zipParts } from '../support/torch-file.js'

const MODEL = `${FIXTURES}golden/mlra_4`
const PROMPT = [62, 65, 24, 102, 123, 123, 32]

async function logits(dir: string): Promise<Float32Array> {
  const engine = await Engine.load(dir, { ranks: 2 })
  const result = await engine.logits(PROMPT)
  await engine.close()
  return result
}

const expected = logits(MODEL)
const tensors = readTensors(MODEL)

function directory(t: { teardown(f: () => void): void }): string {
  const dir = temporary(t)
  copyFileSync(join(MODEL, 'config.json'), join(dir, 'config.json'))
  return dir
}

const bytesOf = (values: Float32Array | Float64Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength)

test('float64 storages', async (t) => {
  const dir = directory(t)
  const saved = (await tensors).map(({ name, shape, values }, i): [SavedTensor, Uint8Array] => [
    { name, storage: 'DoubleStorage', key: String(i), elements: values.length, shape },
    bytesOf(Float64Array.from(values)),
  ])
  const storages = new Map(saved.map(([tensor, data]) => [tensor.key, data]))
  writeFileSync(
    join(dir, 'pytorch_model.bin'),
    zip(
      torchEntries(
        saved.map(([tensor]) => tensor),
        storages,
      ),
    ),
  )
  t.deepEqual(await logits(dir), await expected)
})

test('all tensors in one shared storage, of a zip64 file', async (t) => {
  const dir = directory(t)
  const all = await tensors
  const whole = Float32Array.from(all.flatMap(({ values }) => [...values]))
  let offset = 0
  const saved = all.map(({ name, shape, values }): SavedTensor => {
    const tensor = { name, storage: 'FloatStorage', key: '0', elements: whole.length, offset, shape }
    offset += values.length
    return tensor
  })
  writeFileSync(join(dir, 'pytorch_model.bin'), zip(torchEntries(saved, new Map([['0', bytesOf(whole)]])), true))
  t.deepEqual(await logits(dir), await expected)
})

test('transposed matrices, slices of wider ones, permuted three dimensions, spaced vectors', async (t) => {
  const dir = directory(t)
  const storages = new Map<string, Uint8Array>()
  const saved = (await tensors).map(({ name, shape, values }, i): SavedTensor => {
    const key = String(i)
    const base = { name, storage: 'FloatStorage', key, shape }
    // Where element (flat index) lies in the storage, for strides over the shape.
    const scatter = (strides: number[], elements: number) => {
      const storage = new Float32Array(elements).fill(77)
      for (let n = 0; n < values.length; n++) {
        let rest = n
        let at = 0
        for (let d = shape.length - 1; d >= 0; d--) {
          at += (rest % (shape[d] as number)) * (strides[d] as number)
          rest = Math.floor(rest / (shape[d] as number))
        }
        storage[at] = values[n] as number
      }
      storages.set(key, bytesOf(storage))
      return { ...base, strides, elements }
    }
    if (shape.length === 1) return scatter([3], values.length * 3)
    const [a, b, c] = shape as [number, number, number]
    if (shape.length === 3) return scatter([b, 1, a * b], a * b * c)
    return i % 2 === 0 ? scatter([1, a], a * b) : scatter([b + 5, 1], a * (b + 5))
  })
  writeFileSync(join(dir, 'pytorch_model.bin'), zip(torchEntries(saved, storages)))
  t.deepEqual(await logits(dir), await expected)
  // Converting copies some tensors byte for byte, which these would not survive.
  const error = await t.throwsAsync(convert(dir, join(directory(t), 'converted'), { weights: 'bf16' }), { instanceOf: CheckpointError })
  t.regex(error.message, /view with strides/)
})

test('sharded safetensors, and one tensor of another type than the rest', async (t) => {
  const dir = directory(t)
  const all = await tensors
  const parts = [all.slice(0, 9), all.slice(9)]
  const map: Record<string, string> = {}
  for (const [i, part] of parts.entries()) {
    writeFileSync(join(dir, `model-${i}.safetensors`), safetensors(part))
    for (const { name } of part) map[name] = `model-${i}.safetensors`
  }
  writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }))
  t.deepEqual(await logits(dir), await expected)

  const mixed = directory(t)
  const saved = all.map(({ name, shape, values }, i): [SavedTensor, Uint8Array] => {
    const double = i === 3
    return [
      { name, storage: double ? 'DoubleStorage' : 'FloatStorage', key: String(i), elements: values.length, shape },
      bytesOf(double ? Float64Array.from(values) : values),
    ]
  })
  writeFileSync(
    join(mixed, 'pytorch_model.bin'),
    zip(
      torchEntries(
        saved.map(([tensor]) => tensor),
        new Map(saved.map(([s, d]) => [s.key, d])),
      ),
    ),
  )
  t.deepEqual(await logits(mixed), await expected)
})

full('a zip of more than 4 GiB: offsets beyond 32 bits are found', async (t) => {
  const path = join(temporary(t), 'large.bin')
  const data = new Float32Array([1, 2, 3, 4, 5, 6])
  const saved: SavedTensor[] = [{ name: 'w', storage: 'FloatStorage', key: '0', elements: 6, offset: 2, shape: [2, 2] }]
  const entries = torchEntries(saved, new Map([['0', bytesOf(data)]]))
  writeSparse(path, zipParts(entries, true, [0, 1000, 5 * 2 ** 30]))
  const [tensor] = await withFile(path, (reader) => readTorchBin(reader, path))
  t.is(tensor?.offset, 5 * 2 ** 30 + 30 + 'm/data/0'.length + 8)
  t.deepEqual(tensor?.shape, [2, 2])
})
