// Models in temporary directories: golden checkpoints read back as plain floats, written anew in every way a test wants.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PlainTensor } from '../../bench/plain-tensors.js'

export { type PlainTensor, readTensors } from '../../bench/plain-tensors.js'

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
