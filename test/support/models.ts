// Models in temporary directories: golden checkpoints read back as plain floats, written anew in every way a test wants.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { f32BitsFromF16 } from '../../kernels/float-formats.js'
import { openCheckpoint } from '../../src/checkpoint/checkpoint.js'
import { elements, STORED_BYTES } from '../../src/checkpoint/tensor-source.js'

export interface PlainTensor {
  readonly name: string
  readonly shape: readonly number[]
  readonly values: Float32Array
}

/** Every tensor of a checkpoint as float32. */
export async function readTensors(dir: string): Promise<PlainTensor[]> {
  const { tensors } = await openCheckpoint(dir)
  return [...tensors.values()].map(({ name, path, offset, dtype, shape }) => {
    const count = elements(shape)
    const bytes = Uint8Array.from(readFileSync(path).subarray(offset, offset + count * STORED_BYTES[dtype])).buffer
    if (dtype === 'f32') return { name, shape, values: new Float32Array(bytes) }
    const bits = Uint32Array.from(new Uint16Array(bytes), (h) => (dtype === 'bf16' ? h << 16 : f32BitsFromF16(h)))
    return { name, shape, values: new Float32Array(bits.buffer) }
  })
}

/** A directory that is removed when the test ends. */
export function temporary(t: { teardown(f: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'tetrad-test-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** A copy of a model directory that the test may spoil. */
export function copyOf(t: { teardown(f: () => void): void }, dir: string): string {
  const copy = temporary(t)
  cpSync(dir, copy, { recursive: true })
  return copy
}

export function editConfig(dir: string, change: Record<string, unknown>): void {
  const path = join(dir, 'config.json')
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }))
}

/** A safetensors file of float32 tensors. */
export function safetensors(tensors: readonly PlainTensor[], change: (header: Record<string, unknown>) => void = () => {}): Buffer {
  const header: Record<string, unknown> = {}
  let at = 0
  for (const { name, shape, values } of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + values.byteLength] }
    at += values.byteLength
  }
  change(header)
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, ...tensors.map(({ values }) => Buffer.from(values.buffer, values.byteOffset, values.byteLength))])
}
