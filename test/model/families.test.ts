// Every family's tensors fill every matrix of the shards and ranks once, and nothing of a tensor is left out.
import test from 'ava'
import type { PackedMatrix } from '../../kernels/packing.js'
import { OptionError } from '../../src/index.js'
import { VARIANTS, variantNamed } from '../../src/model/attention-variants.js'
import { planShards } from '../../src/model/checkpoint/shard-plan.js'
import type { TensorSource } from '../../src/model/checkpoint/tensor-source.js'
import type { PresetSize } from '../../src/model/families/family.js'
import { lowerModel } from '../../src/model/lower-model.js'
import { parseModelConfig } from '../../src/model/model-config.js'
import { describeTensors } from '../../src/tools/synth/describe-tensors.js'
import { inKeys } from '../../src/tools/synth/presets.js'
import { layoutModel, type ModelLayout } from '../../workers/layout/model-layout.js'
import { RANK_COUNTS, type RunPlan } from '../../workers/protocol.js'

const PLAN: Omit<RunPlan, 'ranks'> = {
  backend: 'wasm',
  gpu: undefined,
  simd: 'simd128',
  weights: 'f32',
  embedding: 'f32',
  cache: 'f32',
  partition: 'heads',
  stepRows: 1,
  pages: 1,
  contextTokens: 64,
  slots: 1,
  pagesPerSlot: 1,
  replicate: { queryA: false, queryB: false },
}
const SIZE: PresetSize = { heads: 12, headDim: 12, shareQueryDim: 26, latent: { queryRank: () => 22, kvRank: 72, nopeDim: 10, ropeDim: 6 } }
const SIZES = { layers: 2, heads: 12, embed: 30, vocab: 50, contextTokens: 64, intermediate: 38 }

/** Matrices by memory and pointer. */
function matricesOf(layout: ModelLayout): Map<string, PackedMatrix> {
  const found = new Map<string, PackedMatrix>()
  const add = (memory: string, matrix: PackedMatrix) => {
    for (let i = 0; i < matrix.batch; i++) if (matrix.rows * matrix.cols > 0) found.set(`${memory} ${matrix.ptr + i * matrix.batchBytes}`, matrix)
  }
  for (const [s, shard] of layout.shards.entries()) {
    for (const layer of shard.layers) for (const matrix of Object.values(layer)) add(`shard ${s}`, matrix)
    add(`shard ${s}`, shard.head)
    add(`shard ${s}`, shard.embedding)
  }
  for (const [r, rank] of layout.ranks.entries()) for (const { shared } of rank.layers) add(`rank ${r}`, shared)
  return found
}

for (const variant of VARIANTS) {
  for (const tied of [true, false]) {
    test(`${variant.name}, ${tied ? 'one matrix' : 'two matrices'} for embedding and head: each element of each matrix comes from one place`, (t) => {
      const config = parseModelConfig({ ...inKeys(variant.decoder, SIZES), ...variant.presetFields(SIZE), tie_word_embeddings: tied })
      const model = lowerModel(config, variant)
      t.is(model.shape.tiedHead, tied)
      const described = describeTensors(model, variant)
      const file = { size: 0, mtimeMs: 0, ino: 0 }
      const tensors = new Map(
        described.map(({ name, shape }): [string, TensorSource] => [name, { name, shape, path: '', file, offset: 0, dtype: 'f32' }]),
      )
      for (const ranks of RANK_COUNTS) {
        const layout = layoutModel(model.shape, { ...PLAN, ranks })
        const filled = new Map<string, Uint8Array>()
        const matrices = matricesOf(layout)
        for (const plan of planShards(tensors, model, variant, layout)) {
          const used = new Uint8Array(plan.rows * plan.cols)
          for (const piece of plan.pieces) {
            const key = `${piece.memory.kind} ${piece.memory.index} ${piece.ptr}`
            const matrix = matrices.get(key)
            if (!matrix) return t.fail(`${plan.source.name} goes to ${key}, where no matrix is`)
            const cells = filled.get(key) ?? new Uint8Array(matrix.rows * matrix.cols)
            filled.set(key, cells)
            for (let r = 0; r < piece.rows; r++) {
              for (let c = 0; c < piece.cols; c++) {
                const [row, col] = piece.transposed ? [c, r] : [r, c]
                const cell = (piece.packedRow + row) * matrix.cols + piece.packedCol + col
                if (cell >= cells.length) return t.fail(`${plan.source.name} reaches past ${key}`)
                cells[cell] = (cells[cell] ?? 0) + 1
                used[(piece.row + r) * plan.cols + piece.col + c] = 1
              }
            }
          }
          if (plan.vectors.length === 0)
            t.true(
              used.every((u) => u === 1),
              `${plan.source.name} is used whole`,
            )
          else t.deepEqual([plan.rows, plan.pieces.length], [1, 0])
        }
        t.deepEqual([...filled.keys()].sort(), [...matrices.keys()].sort(), `${ranks} ranks: every matrix is filled`)
        for (const [key, cells] of filled)
          t.true(
            cells.every((n) => n === 1),
            `${ranks} ranks: ${key} is filled once`,
          )
      }
    })
  }
}

test('a name that is no variant is refused with those that are', (t) => {
  const error = t.throws(() => variantNamed('mlra_8'), { instanceOf: OptionError })
  t.regex(error?.message ?? '', /mlra_4.*"mlra_8"/)
})

test('an architecture that is not supported is refused by its name', (t) => {
  const gemma = { architectures: ['Gemma2ForCausalLM'], model_type: 'gemma2', hidden_size: 64 }
  t.throws(() => parseModelConfig(gemma), { message: /architectures.*LlamaForCausalLM.*GPT.*Gemma2ForCausalLM/ })
})
