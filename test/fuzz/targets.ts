// What is fuzzed, from which seeds, and what must hold of every input: a typed error, or tensors that lie inside the file.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { TetradError } from '../../src/errors.js'
import { VARIANTS } from '../../src/model/attention-variants.js'
import { readerOf } from '../../src/model/checkpoint/byte-reader.js'
import { parseIndex } from '../../src/model/checkpoint/checkpoint.js'
import { readSafetensors } from '../../src/model/checkpoint/safetensors.js'
import { STORED_BYTES, type TensorSource } from '../../src/model/checkpoint/tensor-source.js'
import { readTorchBin } from '../../src/model/checkpoint/torch-bin.js'
import { unpickleStateDict } from '../../src/model/checkpoint/unpickler.js'
import { modelTensors } from '../../src/model/families/model-tensors.js'
import { lowerModel } from '../../src/model/lower-model.js'
import { parseModelConfig } from '../../src/model/model-config.js'
import { loadTokenizer } from '../../src/tokenizer/tokenizer.js'
import { FIXTURES, familyCases, TINY } from '../support/fixtures.js'
import { safetensors } from '../support/models.js'
import { type SavedTensor, torchEntries, zip, zipParts } from '../support/torch-file.js'
import { adapterInputs, readAdapter } from './adapter-target.js'
import { ggufHeaderBytes, ggufSeed, readGgufModel } from './gguf-seed.js'
import { apply, edits, jsonInputs, place } from './mutations.js'
import { readSnapshot, realSnapshot, snapshotBody, withChecksum } from './snapshot-target.js'

export interface Target {
  readonly name: string
  /** Inputs: mutations of real files, by their structure. */
  readonly inputs: fc.Arbitrary<Uint8Array>
  /** Resolves if the input was read rightly, rejects with what it threw. */
  readonly run: (bytes: Uint8Array) => Promise<void>
}

const saved: SavedTensor[] = [
  { name: 'transformer.wte.weight', storage: 'BFloat16Storage', key: '0', elements: 64, shape: [8, 8] },
  { name: 'a', storage: 'FloatStorage', key: '1', elements: 24, offset: 4, shape: [2, 3, 2] },
  { name: 'b', storage: 'FloatStorage', key: '1', elements: 24, shape: [4, 4], strides: [1, 4] },
  { name: 'c', storage: 'DoubleStorage', key: '2', elements: 5, shape: [] },
]
const storages = new Map([
  ['0', new Uint8Array(128)],
  ['1', new Uint8Array(96)],
  ['2', new Uint8Array(40)],
])
const entries = torchEntries(saved, storages)
const pickle = entries[0]?.data as Uint8Array
const realBin = readFileSync(`${FIXTURES}golden/mlra_4_bf16_sharded/pytorch_model-00003-of-00003.bin`)
const realPickle = (() => {
  const start = realBin.indexOf(Buffer.from([0x80, 2, 0x7d]))
  return realBin.subarray(start, realBin.indexOf(Buffer.from('PK'), start))
})()

function insideFile(tensors: readonly TensorSource[], size: number): void {
  for (const { name, shape: whole, stridedShape: shape = whole, strides, offset, dtype } of tensors) {
    if (shape.includes(0)) continue
    const steps = strides ?? shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1))
    const last = shape.reduce((sum, d, i) => sum + (d - 1) * (steps[i] as number), 0)
    const end = offset + (last + 1) * STORED_BYTES[dtype]
    if (!(offset >= 0 && end <= size)) throw new Error(`${name} lies at ${offset} to ${end} of ${size} bytes`)
  }
}

const plain = [
  { name: 'a', shape: [2, 3], values: new Float32Array(6) },
  { name: 'b', shape: [4], values: new Float32Array(4) },
]
const safe = safetensors(plain)
const safeHeader = JSON.parse(safe.subarray(8, 8 + Number(safe.readBigUInt64LE())).toString())

function withHeader(json: Uint8Array): Uint8Array {
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, Buffer.alloc(40)])
}

function tokenizerTarget(): Target['run'] {
  const dir = mkdtempSync(join(tmpdir(), 'tetrad-fuzz-'))
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }))
  return async (bytes) => {
    writeFileSync(join(dir, 'tokenizer.json'), bytes)
    const tokenizer = await loadTokenizer(dir, 4096)
    if (!tokenizer) throw new Error('the file was not seen')
  }
}

const tokenizerSeed = (() => {
  const whole = JSON.parse(readFileSync(`${TINY}/tokenizer.json`, 'utf8'))
  const vocab = Object.fromEntries(Object.entries(whole.model.vocab).slice(0, 300))
  return { ...whole, model: { ...whole.model, vocab, merges: [] } }
})()

export const TARGETS: readonly Target[] = [
  {
    name: 'pickle',
    inputs: fc.oneof(
      edits(true).map((changes) => apply(pickle, changes)),
      edits(true).map((changes) => apply(realPickle, changes)),
      fc.uint8Array({ maxLength: 64 }),
    ),
    run: async (bytes) => void unpickleStateDict(bytes, 'x.bin'),
  },
  {
    name: 'zip',
    inputs: fc.oneof(
      edits(false).map((changes) => apply(zip(entries), changes)),
      // The directory and the end records are where a zip says where things are.
      fc.tuple(fc.boolean(), edits(false)).map(([zip64, changes]) => {
        const { parts } = zipParts(entries, zip64)
        return apply(zip(entries, zip64), changes, (parts.at(-1) as [number, Buffer])[0])
      }),
      edits(true).map((changes) => zip(entries.map((e) => (e.data === pickle ? { ...e, data: apply(pickle, changes) } : e)))),
      fc.tuple(place, edits(false)).map(([, changes]) => apply(realBin, changes, realBin.length - 2000)),
    ),
    run: async (bytes) => insideFile(await readTorchBin(readerOf(bytes), 'x.bin'), bytes.length),
  },
  {
    name: 'safetensors',
    inputs: fc.oneof(
      jsonInputs(safeHeader).map(withHeader),
      edits(false).map((changes) => apply(safe, changes)),
      fc.uint8Array({ maxLength: 64 }),
    ),
    run: async (bytes) => insideFile(await readSafetensors(readerOf(bytes), 'x.safetensors'), bytes.length),
  },
  {
    name: 'config',
    inputs: jsonInputs(JSON.parse(readFileSync(`${TINY}/config.json`, 'utf8'))),
    run: async (bytes) => void parseModelConfig(parseOr(bytes)),
  },
  ...familyTargets(),
  {
    name: 'index',
    inputs: jsonInputs({ metadata: { total_size: 3 }, weight_map: { a: 'x-1.bin', b: 'x-2.bin', c: 'x-2.bin' } }),
    run: async (bytes) => void parseIndex(Buffer.from(bytes).toString(), 'index.json'),
  },
  {
    name: 'gguf',
    inputs: fc.oneof(
      { weight: 3, arbitrary: edits(false).map((changes) => apply(ggufSeed, changes, 0, ggufHeaderBytes)) },
      { weight: 1, arbitrary: edits(false).map((changes) => apply(ggufSeed, changes)) },
      { weight: 1, arbitrary: fc.nat({ max: ggufSeed.length }).map((length) => ggufSeed.subarray(0, length)) },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 64 }) },
    ),
    run: async (bytes) => insideFile(await readGgufModel(bytes), bytes.length),
  },
  { name: 'tokenizer', inputs: jsonInputs(tokenizerSeed), run: tokenizerTarget() },
  {
    name: 'snapshot',
    inputs: fc.oneof(
      edits(false).map((changes) => apply(realSnapshot, changes)),
      // The header and the first frames, where the structure is; and with a checksum that is right.
      edits(false).map((changes) => apply(realSnapshot, changes, 0, 500)),
      edits(false).map((changes) => withChecksum(apply(snapshotBody, changes, 0, 500))),
      edits(false).map((changes) => withChecksum(apply(snapshotBody, changes))),
      fc.uint8Array({ maxLength: 64 }),
    ),
    run: readSnapshot,
  },
  { name: 'adapter', inputs: adapterInputs, run: readAdapter },
]

/** Of each line of models: a configuration that is read is lowered, or refused, and its tensors are listed. */
function familyTargets(): Target[] {
  return familyCases().map(({ name, dir }) => ({
    name: `config-${name}`,
    inputs: jsonInputs(JSON.parse(readFileSync(`${dir}/config.json`, 'utf8'))),
    run: async (bytes) => {
      const config = parseModelConfig(parseOr(bytes))
      for (const variant of VARIANTS.filter(({ decoder }) => decoder === config.decoder)) {
        const model = lowerModel(config, variant)
        for (const { shape } of modelTensors(model, variant)) {
          if (!shape.every((n) => Number.isSafeInteger(n) && n > 0)) throw new Error(`a tensor of shape [${shape}]`)
        }
      }
    },
  }))
}

/** JSON that cannot be parsed never reaches parseModelConfig. */
function parseOr(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString())
  } catch {
    return undefined
  }
}

/** 'read', 'refused' (a typed error), or throws: what must not happen. */
export async function judge(target: Target, bytes: Uint8Array): Promise<'read' | 'refused'> {
  try {
    await target.run(bytes)
    return 'read'
  } catch (error) {
    if (error instanceof TetradError && error.remedy !== '') return 'refused'
    throw error
  }
}
