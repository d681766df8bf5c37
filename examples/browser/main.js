// Loads models/tiny by HTTP and runs it in this page: the engine of the package, its ranks in Web Workers.
import './shims/globals.js'
import { fetchFiles } from './shims/node.js'

// models/tiny, converted: serve.mjs does it.
const MODEL = '/models/tiny-packed'
const status = document.querySelector('#status')

const filesOf = (model) => ['config.json', 'tokenizer.json', 'model.safetensors'].map((name) => `${model}/${name}`)
const FILES = [...filesOf(MODEL), '/dist/kernels/wasm/tetrad.wasm', '/dist/kernels/wasm/tetrad-relaxed.wasm', '/package.json']

const engines = new Map()

/** The engine of a model at a number of ranks, loaded once. */
async function engineAt(ranks, model = MODEL) {
  const { Engine } = await import('../../dist/src/engine/engine.js')
  const key = `${model} ${ranks}`
  if (!engines.has(key)) engines.set(key, Engine.load(model, { ranks, backend: 'wasm', cacheTokens: 2048, maxRunning: 4 }))
  return engines.get(key)
}

/** For a benchmark: another model that the server has, of converted weights. */
async function fetchModel(model) {
  await fetchFiles(filesOf(model), () => {})
}

async function closeAll() {
  for (const engine of engines.values()) await (await engine).close()
  engines.clear()
}

/** For a test or a benchmark: tokens, a hash of the logits, and tokens a second. */
async function measure(ranks, prompt, maxTokens, model = MODEL) {
  const engine = await engineAt(ranks, model)
  const logits = await engine.logits(await engine.tokenize(prompt))
  const digest = new Uint8Array(
    await crypto.subtle.digest('SHA-256', Uint8Array.from(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))),
  )
  const start = performance.now()
  const { tokens, text } = await engine.generate(prompt, { maxTokens, ignoreEos: true })
  const seconds = (performance.now() - start) / 1000
  return {
    sha256: [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join(''),
    tokens: [...tokens],
    text,
    tokensPerSecond: tokens.length / seconds,
    info: { ...engine.info },
  }
}

try {
  if (!crossOriginIsolated) throw new Error('this page needs the headers Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy')
  await fetchFiles(FILES, (done, all) => {
    status.textContent = `loading: ${done} of ${all} files`
  })
  Object.assign(globalThis, { tetrad: { measure, closeAll, fetchModel } })
  status.textContent = `ready: ${navigator.hardwareConcurrency} threads`
} catch (error) {
  status.textContent = `failed: ${error.message}`
}

document.querySelector('#form').addEventListener('submit', async (event) => {
  event.preventDefault()
  const output = document.querySelector('#output')
  output.textContent = ''
  try {
    const ranks = Number(document.querySelector('#ranks').value)
    status.textContent = `running at ${ranks} ranks`
    const engine = await engineAt(ranks)
    const start = performance.now()
    let count = 0
    for await (const { text, tokens } of engine.generate(document.querySelector('#prompt').value, { maxTokens: 128, temperature: 0.8, seed: 1 })) {
      output.textContent += text
      count += tokens.length
    }
    status.textContent = `${count} tokens, ${(count / ((performance.now() - start) / 1000)).toFixed(0)} a second, ${engine.info.determinismKey}`
  } catch (error) {
    status.textContent = `failed: ${error.message}`
  }
})
