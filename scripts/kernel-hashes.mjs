// Prints the SHA-256 of every kernel that the built package can run: the WebAssembly builds, and each WGSL and gpu.js source that a
// GPU rank would dispatch for the golden models and for models of the paper's size, in all formats. Needs no GPU. A refactoring that
// keeps all bits prints the same before and after: node scripts/kernel-hashes.mjs > before.txt
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { CACHE_FORMAT_NAMES, CACHE_FORMATS } from '../dist/kernels/cache-formats.js'
import { WEIGHT_FORMAT_NAMES, WEIGHT_FORMATS } from '../dist/kernels/weight-formats.js'
import { openModel, planRun } from '../dist/src/engine/model.js'
import { variantNamed } from '../dist/src/model/attention-variants.js'
import { lowerModel } from '../dist/src/model/lower-model.js'
import { parseModelConfig } from '../dist/src/model/model-config.js'
import { checkOptions, resolveFor } from '../dist/src/options/engine-options.js'
import { PRESETS } from '../dist/src/tools/synth/presets.js'
import { DryProgram } from '../dist/workers/gpu/dry-program.js'
import { listDispatches } from '../dist/workers/gpu/list-dispatches.js'
import { layoutModel } from '../dist/workers/layout/model-layout.js'

const GOLDENS = 'test/fixtures/golden'
const PAPER_VARIANTS = ['mlra_4', 'mlra_2', 'gla_2', 'mla', 'gqa', 'mha', 'tpa']
const ADAPTER = {
  vendor: '',
  architecture: '',
  device: '',
  description: '',
  software: false,
  tensorCores: true,
  workgroupStorage: 49_152,
  workgroupThreads: 1024,
  largestBuffer: 2 ** 31,
}

const hash = (data) => createHash('sha256').update(data).digest('hex')
/** 'kind name hash' of each distinct kernel. */
const kernels = new Set()

class RecordingProgram extends DryProgram {
  gpuJs(name, source, constants, ...rest) {
    kernels.add(`gpu.js ${name.replaceAll(' ', '-')} ${hash(`${source} ${JSON.stringify(constants)}`)}`)
    return super.gpuJs(name, source, constants, ...rest)
  }

  wgsl(name, code, ...rest) {
    kernels.add(`wgsl ${name.replaceAll(' ', '-')} ${hash(code)}`)
    return super.wgsl(name, code, ...rest)
  }
}

for (const file of ['tetrad.wasm', 'tetrad-relaxed.wasm']) kernels.add(`wasm ${file} ${hash(readFileSync(`dist/kernels/wasm/${file}`))}`)
const models = [
  ...(await Promise.all(readdirSync(GOLDENS).map((name) => openModel(`${GOLDENS}/${name}`, undefined)))),
  ...PAPER_VARIANTS.map((name) => {
    const config = parseModelConfig(PRESETS['2.9b'](name))
    const variant = variantNamed(name)
    return { config, variant, lowered: lowerModel(config, variant), storedTypes: ['bf16'], parameters: 0 }
  }),
]
for (const model of models) {
  for (const cache of CACHE_FORMAT_NAMES.filter((name) => CACHE_FORMATS[name].gpu)) {
    for (const weights of WEIGHT_FORMAT_NAMES) {
      for (const ranks of [1, 2, 4]) {
        for (const gpuKernels of ['auto', 'gpu.js']) {
          if (gpuKernels === 'gpu.js' && !(CACHE_FORMATS[cache].gpu.gpuJs && WEIGHT_FORMATS[weights].floatTiles)) continue
          const options = resolveFor('gpu', checkOptions({ ranks, cache, weights, gpuKernels, cacheTokens: 1024, maxContext: 1024 }))
          const plan = planRun(model, options, 4, 2 ** 33)
          const layout = layoutModel(model.lowered.shape, plan)
          for (const tensorCores of [true, false]) {
            for (let rank = 0; rank < ranks; rank++) {
              await listDispatches(model.lowered.shape, plan, layout, rank, { ...ADAPTER, tensorCores }, new RecordingProgram())
            }
          }
        }
      }
    }
  }
}
for (const line of [...kernels].sort()) console.log(line)
