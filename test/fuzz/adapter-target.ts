// Directories of LoRA adapters for the fuzzer: the configuration and the weights, both mutated, read as an engine does.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { openAdapter } from '../../src/model/adapters/open-adapter.js'
import { VARIANTS, type Variant } from '../../src/model/attention-variants.js'
import { STORED_BYTES } from '../../src/model/checkpoint/tensor-source.js'
import { modelTensors } from '../../src/model/families/model-tensors.js'
import { lowerModel } from '../../src/model/lower-model.js'
import { parseModelConfig } from '../../src/model/model-config.js'
import { adapterConfig, adapterTensors } from '../support/adapters.js'
import { FIXTURES } from '../support/fixtures.js'
import { type PlainTensor, safetensors } from '../support/models.js'
import { apply, edits, jsonInputs } from './mutations.js'

const BASE = `${FIXTURES}golden-hf/llama`
const MAX_RANK = 16
const config = parseModelConfig(JSON.parse(readFileSync(`${BASE}/config.json`, 'utf8')))
const variant = VARIANTS.find(({ decoder }) => decoder === config.decoder) as Variant
const model = lowerModel(config, variant)

const spec = { seed: 1, rank: 2 }
const tensors: readonly PlainTensor[] = modelTensors(model, variant).map(({ name, shape }) => ({ name, shape, values: new Float32Array(0) }))
const configSeed = { ...adapterConfig(tensors, spec), rank_pattern: { down_proj: 3 }, alpha_pattern: { q_proj: 5 } }
const weights = safetensors(adapterTensors(tensors, { ...spec, rankOf: (module) => (module.endsWith('down_proj') ? 3 : 2) }))
const headerBytes = 8 + Number(weights.readBigUInt64LE())
const header = JSON.parse(weights.subarray(8, headerBytes).toString()) as object

/** The length of the configuration, the configuration, the weights. */
const joined = (configuration: Uint8Array, file: Uint8Array) => {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(configuration.length)
  return Buffer.concat([length, configuration, file])
}

const withHeader = (json: Uint8Array) => {
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, weights.subarray(headerBytes)])
}

const realConfig = Buffer.from(JSON.stringify(configSeed))
export const adapterInputs: fc.Arbitrary<Uint8Array> = fc.oneof(
  { weight: 3, arbitrary: jsonInputs(configSeed).map((bytes) => joined(bytes, weights)) },
  { weight: 2, arbitrary: jsonInputs(header).map((bytes) => joined(realConfig, withHeader(bytes))) },
  { weight: 1, arbitrary: edits(false).map((changes) => joined(realConfig, apply(weights, changes, 0, headerBytes))) },
)

const dir = mkdtempSync(join(tmpdir(), 'tetrad-fuzz-'))
process.on('exit', () => rmSync(dir, { recursive: true, force: true }))

/** What was read lies inside the file, has the shapes of its projection, and a scale that is a number. */
export async function readAdapter(bytes: Uint8Array): Promise<void> {
  const length = Buffer.from(bytes.buffer, bytes.byteOffset).readUInt32LE()
  const file = bytes.subarray(4 + length)
  writeFileSync(join(dir, 'adapter_config.json'), bytes.subarray(4, 4 + length))
  writeFileSync(join(dir, 'adapter_model.safetensors'), file)
  const read = await openAdapter(dir, model, variant, MAX_RANK)
  for (const {
    spec: { name, shape },
    rank,
    scale,
    a,
    b,
  } of read.tensors) {
    const [outputs, inputs] = shape as [number, number]
    if (!(rank >= 1 && rank <= MAX_RANK && Number.isFinite(scale))) throw new Error(`${name} has rank ${rank} and scale ${scale}`)
    for (const [source, size] of [
      [a, rank * inputs],
      [b, outputs * rank],
    ] as const) {
      const end = source.offset + size * STORED_BYTES[source.dtype]
      if (!(source.offset >= 0 && end <= file.length)) throw new Error(`${source.name} lies at ${source.offset} to ${end} of ${file.length} bytes`)
    }
  }
}
