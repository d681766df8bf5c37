// Real models and their reference outputs, as they lie in the repository.
import { readdirSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { withFile } from '../../src/model/checkpoint/byte-reader.js'
import { readSafetensors } from '../../src/model/checkpoint/safetensors.js'
import { elements } from '../../src/model/checkpoint/tensor-source.js'

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
export const TINY = `${ROOT}models/tiny`
export const FIXTURES = `${ROOT}test/fixtures/`

export interface GoldenCase {
  readonly name: string
  readonly dir: string
  readonly variant: string
  readonly prompts: number[][]
  readonly greedy: number[][]
}

/** Every folder of test/fixtures/golden is a case. */
export function goldenCases(): GoldenCase[] {
  return readdirSync(`${FIXTURES}golden`).map((name) => {
    const dir = `${FIXTURES}golden/${name}`
    return { name, dir, ...(JSON.parse(readFileSync(`${dir}/golden.json`, 'utf8')) as Pick<GoldenCase, 'variant' | 'prompts' | 'greedy'>) }
  })
}

export interface FamilyCase extends GoldenCase {
  /** Of each continuation: the smallest difference between the two largest logits of a step. */
  readonly margins: number[]
}

/** Every folder of test/fixtures/golden-hf: a checkpoint that transformers wrote, with its float64 logits. */
export function familyCases(): FamilyCase[] {
  return readdirSync(`${FIXTURES}golden-hf`).map((name) => {
    const dir = `${FIXTURES}golden-hf/${name}`
    const { family, prompts, greedy, smallest_top1_margin } = JSON.parse(readFileSync(`${dir}/golden.json`, 'utf8')) as {
      readonly family: string
      readonly prompts: number[][]
      readonly greedy: number[][]
      readonly smallest_top1_margin: number[]
    }
    return { name, dir, variant: family, prompts, greedy, margins: smallest_top1_margin }
  })
}

/** Golden logits of prompt i: [T, vocab]. */
export async function goldenLogits(dir: string, i: number): Promise<Float32Array> {
  const path = `${dir}/golden.safetensors`
  const source = (await withFile(path, (reader) => readSafetensors(reader, path))).find((t) => t.name === `logits.${i}`)
  if (!source) throw new Error(`no logits.${i} in ${path}`)
  const values = new Float32Array(elements(source.shape))
  const file = await open(path)
  await file.read(new Uint8Array(values.buffer), 0, values.byteLength, source.offset)
  await file.close()
  return values
}

export interface TinyGolden {
  readonly greedy: { text: string; ids: number[]; out: number[]; decoded: string }[]
}

export function tinyGolden(): TinyGolden {
  return JSON.parse(readFileSync(`${FIXTURES}tiny-golden.json`, 'utf8')) as TinyGolden
}

export function largestDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) throw new Error(`lengths ${a.length} and ${b.length} differ`)
  let largest = 0
  // A NaN must not pass as equal.
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs((a[i] as number) - (b[i] as number)))
  return largest
}

/** Numbers that look random and are the same every time. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 4294967296
  }
}
