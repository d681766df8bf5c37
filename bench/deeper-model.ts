// A larger model whose answers are known: models/tiny with further layers that add nothing, or little, to what passes through them. Its
// own small self guesses all of its tokens right, or part of them.
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { safetensorsHeader } from '../src/model/checkpoint/safetensors-header.js'
import { type PlainTensor, readTensors } from './plain-tensors.js'

const LAYER = /^(transformer\.h\.)(\d+)(\..*)$/
/** What a layer adds to the residual stream goes through one of these. */
const OUTPUT = /\.(attn|mlp)\.c_proj\.weight$/

/**
 * Writes a model of `layers` layers (more than `from` has) to `dir`, as bf16. The added ones are copies of its first ones, their outputs
 * times `scale`: 0 gives the same logits.
 */
export async function deeperModel(from: string, dir: string, layers: number, scale = 0): Promise<void> {
  const config = JSON.parse(readFileSync(join(from, 'config.json'), 'utf8')) as Record<string, unknown>
  const own = Number(config.n_layer)
  const tensors = await readTensors(from)
  const added = Array.from({ length: layers - own }, (_, i) => tensors.flatMap((tensor) => copyIn(tensor, i % own, own + i, scale))).flat()
  const all = [...tensors, ...added]
  const { header } = safetensorsHeader(
    all.map(({ name, shape, values }) => ({ name, dtype: 'BF16', shape, bytes: 2 * values.length })),
    { format: 'pt' },
  )
  writeFileSync(join(dir, 'model.safetensors'), Buffer.concat([header, ...all.map(({ values }) => bf16(values))]))
  writeFileSync(join(dir, 'config.json'), JSON.stringify({ ...config, n_layer: layers }))
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    if (existsSync(join(from, name))) cpSync(join(from, name), join(dir, name))
  }
}

/** A tensor of layer `source` as that of layer `target`; none for others. */
function copyIn({ name, shape, values }: PlainTensor, source: number, target: number, scale: number): PlainTensor[] {
  const [, before, layer, after] = LAYER.exec(name) ?? []
  if (Number(layer ?? -1) !== source) return []
  const factor = OUTPUT.test(name) ? scale : 1
  return [{ name: `${before}${target}${after}`, shape, values: values.map((v) => v * factor) }]
}

/** The upper half of each value. */
function bf16(values: Float32Array): Uint8Array {
  const halves = new Uint16Array(new Uint32Array(values.buffer, values.byteOffset, values.length).map((bits) => bits >>> 16))
  return new Uint8Array(halves.buffer)
}
