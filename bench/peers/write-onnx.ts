// One decode step of an MLRA-4 checkpoint as an ONNX graph for onnxruntime, absorbed form, float32. Plain operators of opset 17; the runtime
// fuses what it can. Inputs: id [1], cos and sin [rope / 2], and for each layer cached latents c<i> [S, 4 * latent] and rope keys k<i>
// [S, rope], S >= 0. Outputs: logits [1, vocab], and the layer's new cached rows nc<i>, nk<i>.
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { type PlainTensor, readTensors } from '../plain-tensors.js'

interface OnnxProto {
  readonly onnx: { readonly ModelProto: { encode(model: object): { finish(): Uint8Array } } }
}

const FLOAT = 1
const INT64 = 7
const EPSILON = 1e-6

/** Collects nodes and constants. Values are known by name. */
class Graph {
  readonly nodes: object[] = []
  readonly initializers: object[] = []
  #next = 0

  /** The name of the first output. */
  op(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, number | readonly number[]>> = {},
    name = `v${this.#next++}`,
  ): string {
    const attribute = Object.entries(attributes).map(([key, value]) =>
      typeof value === 'number' ? { name: key, type: 2, i: value } : { name: key, type: 7, ints: value },
    )
    this.nodes.push({ opType, input: inputs, output: [name], attribute })
    return name
  }

  floats(dims: readonly number[], values: Float32Array, name = `w${this.#next++}`): string {
    this.initializers.push({ name, dims, dataType: FLOAT, rawData: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) })
    return name
  }

  number(value: number): string {
    return this.floats([], Float32Array.of(value))
  }

  ints(values: readonly number[]): string {
    const name = `s${this.#next++}`
    this.initializers.push({ name, dims: [values.length], dataType: INT64, rawData: new Uint8Array(BigInt64Array.from(values, BigInt).buffer) })
    return name
  }
}

/** [cols, rows] of a matrix [rows, cols]. */
function transposed(values: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(values.length)
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = values[r * cols + c] as number
  return out
}

/** Writes the graph of the checkpoint in `dir`. `folder`: where onnx-proto is installed. Returns shapes that its caller feeds. */
export async function writeOnnx(file: string, dir: string, folder: string): Promise<{ layers: number; latents: number; rope: number }> {
  const { onnx } = createRequire(join(resolve(folder), 'index.js'))('onnx-proto') as OnnxProto
  const c = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as Record<string, number>
  const field = (name: string): number => {
    const value = c[name]
    if (typeof value !== 'number') throw new Error(`config.json has no ${name}: it is no latent model`)
    return value
  }
  const [layers, heads, embed] = [field('n_layer'), field('n_head'), field('n_embd')]
  const [nope, rope, queryRank, latents] = [field('qk_nope_head_dim'), field('qk_rope_head_dim'), field('q_lora_rank'), field('kv_lora_rank')]
  const width = latents / 4
  const byName = new Map((await readTensors(dir)).map((t) => [t.name, t]))
  const tensor = (name: string): PlainTensor => {
    const found = byName.get(name)
    if (!found) throw new Error(`the checkpoint has no ${name}`)
    return found
  }
  const g = new Graph()
  const linear = (x: string, name: string) => {
    const { shape, values } = tensor(name)
    const [rows, cols] = shape as [number, number]
    return g.op('MatMul', [x, g.floats([cols, rows], transposed(values, rows, cols))])
  }
  const scale = (x: string, factor: number) => g.op('Mul', [x, g.number(factor)])
  /** weight * x / sqrt(mean(x^2) + epsilon), over the last axis. */
  const norm = (x: string, name: string, factor = 1) => {
    const { shape, values } = tensor(name)
    const mean = g.op('ReduceMean', [g.op('Mul', [x, x])], { axes: [-1] })
    const divided = g.op('Div', [x, g.op('Sqrt', [g.op('Add', [mean, g.number(EPSILON)])])])
    return g.op('Mul', [
      divided,
      g.floats(
        shape,
        values.map((v) => v * factor),
      ),
    ])
  }
  const reshape = (x: string, shape: readonly number[]) => g.op('Reshape', [x, g.ints(shape)])
  const slice = (x: string, start: number, end: number, axis: number) => g.op('Slice', [x, g.ints([start]), g.ints([end]), g.ints([axis])])
  const rotate = (x: string, axis: number) => {
    const [a, b] = [slice(x, 0, rope / 2, axis), slice(x, rope / 2, rope, axis)]
    const [first, second] = [
      g.op('Sub', [g.op('Mul', [a, 'cos']), g.op('Mul', [b, 'sin'])]),
      g.op('Add', [g.op('Mul', [a, 'sin']), g.op('Mul', [b, 'cos'])]),
    ]
    return g.op('Concat', [first, second], { axis })
  }
  const embedding = byName.get('transformer.wte.weight') ?? tensor('lm_head.weight')
  let x = g.op('Gather', [g.floats(embedding.shape, embedding.values), 'id'], { axis: 0 })
  for (let i = 0; i < layers; i++) {
    const at = (name: string) => `transformer.h.${i}.${name}`
    const normed = norm(x, at('input_layernorm.weight'))
    const q = linear(
      norm(linear(normed, at('attn.q_a_proj.weight')), at('attn.q_a_layernorm.weight'), Math.sqrt(embed / queryRank)),
      at('attn.q_b_proj.weight'),
    )
    const queries = reshape(q, [heads, nope + rope])
    const kv = linear(normed, at('attn.kv_a_proj_with_mqa.weight'))
    const rows = [0, 1, 2, 3].map((l) =>
      norm(slice(kv, l * width, (l + 1) * width, 1), at(`attn.kv_a_layernorms.${l}.weight`), Math.sqrt(embed / width)),
    )
    const newLatents = g.op('Concat', rows, { axis: 1 }, `nc${i}`)
    const newKey = g.op('Identity', [rotate(slice(kv, latents, latents + rope, 1), 1)], {}, `nk${i}`)
    // [4, S + 1, width] and [S + 1, rope]
    const cached = g.op('Transpose', [reshape(g.op('Concat', [`c${i}`, newLatents], { axis: 0 }), [-1, 4, width])], { perm: [1, 0, 2] })
    const ropeKeys = g.op('Concat', [`k${i}`, newKey], { axis: 0 })
    // kv_b_proj: [4, width, heads, 2 * nope]
    const { values } = tensor(at('attn.kv_b_proj'))
    const keyUp = new Float32Array(4 * heads * nope * width)
    const valueUp = new Float32Array(4 * heads * width * nope)
    for (let l = 0; l < 4; l++) {
      for (let d = 0; d < width; d++) {
        for (let h = 0; h < heads; h++) {
          for (let n = 0; n < nope; n++) {
            const from = ((l * width + d) * heads + h) * 2 * nope + n
            keyUp[((l * heads + h) * nope + n) * width + d] = values[from] as number
            valueUp[((l * heads + h) * width + d) * nope + n] = values[from + nope] as number
          }
        }
      }
    }
    const plain = reshape(slice(queries, 0, nope, 1), [1, heads, 1, nope])
    const absorbed = reshape(g.op('MatMul', [plain, g.floats([4, heads, nope, width], keyUp)]), [4, heads, width])
    const scores = g.op('MatMul', [absorbed, g.op('Transpose', [cached], { perm: [0, 2, 1] })])
    const ropeScores = g.op('MatMul', [rotate(slice(queries, nope, nope + rope, 1), 1), g.op('Transpose', [ropeKeys], { perm: [1, 0] })])
    const weights = g.op('Softmax', [scale(g.op('Add', [scores, ropeScores]), (nope + rope) ** -0.5)], { axis: -1 })
    const z = reshape(g.op('MatMul', [weights, cached]), [4, heads, 1, width])
    const out = g.op('ReduceSum', [g.op('MatMul', [z, g.floats([4, heads, width, nope], valueUp)]), g.ints([0])], { keepdims: 0 })
    x = g.op('Add', [x, linear(reshape(scale(out, 0.5), [1, heads * nope]), at('attn.c_proj.weight'))])
    const input = norm(x, at('post_attention_layernorm.weight'))
    const gate = linear(input, at('mlp.c_fc1.weight'))
    const hidden = g.op('Mul', [g.op('Mul', [gate, g.op('Sigmoid', [gate])]), linear(input, at('mlp.c_fc2.weight'))])
    x = g.op('Add', [x, linear(hidden, at('mlp.c_proj.weight'))])
  }
  const head = byName.has('lm_head.weight') ? 'lm_head.weight' : 'transformer.wte.weight'
  const last = linear(norm(x, 'layernorm.weight'), head)
  g.op('Identity', [last], {}, 'logits')
  const value = (name: string, elemType: number, shape: readonly (number | string)[]) => ({
    name,
    type: { tensorType: { elemType, shape: { dim: shape.map((d) => (typeof d === 'number' ? { dimValue: d } : { dimParam: d })) } } },
  })
  const perLayer = (of: (i: number) => object[]) => Array.from({ length: layers }, (_, i) => of(i)).flat()
  const model = {
    irVersion: 8,
    opsetImport: [{ domain: '', version: 17 }],
    graph: {
      name: 'mlra-4 decode step',
      node: g.nodes,
      initializer: g.initializers,
      input: [
        value('id', INT64, [1]),
        value('cos', FLOAT, [rope / 2]),
        value('sin', FLOAT, [rope / 2]),
        ...perLayer((i) => [value(`c${i}`, FLOAT, ['S', latents]), value(`k${i}`, FLOAT, ['S', rope])]),
      ],
      output: [
        value('logits', FLOAT, [1, field('vocab_size')]),
        ...perLayer((i) => [value(`nc${i}`, FLOAT, [1, latents]), value(`nk${i}`, FLOAT, [1, rope])]),
      ],
    },
  }
  writeFileSync(file, onnx.ModelProto.encode(model).finish())
  return { layers, latents, rope }
}
