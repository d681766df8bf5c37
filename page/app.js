// The live page: a prompt, its tokens as they arrive, and what the ranks do meanwhile. It uses only endpoints of its own server.

const $ = (id) => document.getElementById(id)
const COLUMNS = 120
/** Cold colours for computing, warm ones for waiting. They differ in lightness, so that colour-blind readers can tell them apart. */
const COMPUTING = ['#0b4f8a', '#2b8cc4', '#00806a', '#66c2a5', '#9db7c9']
const WAITING = ['#f0e442', '#e69f00', '#d55e00', '#a63603', '#cc79a7', '#f4a6b8', '#8c6d31']

/** @type {{ text: string, logprob: number, top: { token: string, logprob: number }[], allowed: number | undefined }[]} */
let tokens = []
let current = -1
let running = null

const headers = () => ({ 'content-type': 'application/json', ...($('key').value && { authorization: `Bearer ${$('key').value}` }) })
const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`

/** Server-sent events of a response, as objects. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const parts = (rest + value).split('\n\n')
    rest = parts.pop()
    for (const part of parts) if (part.startsWith('data: ') && part !== 'data: [DONE]') yield JSON.parse(part.slice(6))
  }
}

async function errorOf(response) {
  try {
    return (await response.json()).error.message
  } catch {
    return `the server answered ${response.status}`
  }
}

// The output

/** Joins the bytes of tokens that are parts of a character, which the server names bytes:\xf0\x9f. */
let decoder = new TextDecoder()

/** The text that a token completes; empty while a character is not complete. */
function textOf(name) {
  if (/^token_id:\d+$/.test(name)) return ''
  if (!/^bytes:(\\x[0-9a-f]{2})+$/.test(name)) return name
  const bytes = [...name.matchAll(/\\x([0-9a-f]{2})/g)].map(([, hex]) => Number.parseInt(hex, 16))
  return decoder.decode(Uint8Array.from(bytes), { stream: true })
}

/** allowed: how many tokens the schema allowed there, if there is one. */
function addToken(name, logprob, top, allowed) {
  const text = textOf(name)
  const output = $('output')
  const isAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40
  const span = document.createElement('span')
  span.textContent = text
  span.style.opacity = String(0.6 + 0.4 * Math.exp(logprob))
  span.dataset.index = String(tokens.length)
  span.classList.toggle('forced', allowed === 1)
  tokens.push({ text: name, logprob, top, allowed })
  output.append(span)
  // Follows the text, unless the reader has scrolled up.
  if (isAtEnd) output.scrollTop = output.scrollHeight
}

function heldText({ allowed }) {
  if (allowed === undefined) return ''
  return allowed === 1 ? '. The schema allowed nothing else.' : `. The schema allowed ${allowed} tokens.`
}

/** Throws what says that it is no JSON. */
function schemaGiven() {
  const text = $('schema').value.trim()
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Error(`the schema is not JSON: ${error.message}`)
  }
}

function show(index) {
  $('output').querySelector('.current')?.classList.remove('current')
  current = index
  const token = tokens[index]
  if (!token) {
    $('token-facts').textContent = ''
    return
  }
  const span = $('output').querySelector(`[data-index="${index}"]`)
  span?.classList.add('current')
  span?.scrollIntoView({ block: 'nearest' })
  const others = token.top.map(({ token: text, logprob }) => `${JSON.stringify(text)} ${percent(logprob)}`).join(', ')
  $('token-facts').textContent = `${JSON.stringify(token.text)} had ${percent(token.logprob)}. Most likely: ${others}${heldText(token)}`
}

$('output').addEventListener('mouseover', (event) => {
  const index = event.target.dataset?.index
  if (index !== undefined) show(Number(index))
})
$('output').addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
  const edge = { Home: 0, End: tokens.length - 1 }[event.key]
  if (step === undefined && edge === undefined) return
  event.preventDefault()
  show(edge ?? Math.max(0, Math.min(tokens.length - 1, current + step)))
})

async function generate() {
  const prompt = $('prompt').value
  running = new AbortController()
  tokens = []
  decoder = new TextDecoder()
  show(-1)
  $('output').replaceChildren(Object.assign(document.createElement('span'), { className: 'prompt', textContent: prompt }))
  $('run').disabled = true
  $('stop').disabled = false
  $('status').textContent = 'Generating.'
  const start = performance.now()
  try {
    const schema = schemaGiven()
    $('schema-hint').hidden = schema === undefined
    const body = {
      model: $('model').value,
      prompt,
      max_tokens: Number($('max-tokens').value),
      temperature: Number($('temperature').value),
      logprobs: 5,
      stream: true,
      stream_options: { include_usage: true },
      ...(schema !== undefined && { json_schema: schema }),
      ...($('seed').value !== '' && { seed: Number($('seed').value) }),
    }
    const response = await fetch('v1/completions', { method: 'POST', headers: headers(), body: JSON.stringify(body), signal: running.signal })
    if (!response.ok) throw new Error(await errorOf(response))
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message)
      const [choice] = event.choices
      const probabilities = choice?.logprobs
      for (const [i, text] of (probabilities?.tokens ?? []).entries()) {
        const top = Object.entries(probabilities.top_logprobs[i]).map(([token, logprob]) => ({ token, logprob }))
        addToken(text, probabilities.token_logprobs[i], top, probabilities.allowed_tokens?.[i])
      }
      if (event.usage) {
        const { completion_tokens: made, prompt_tokens: given, prompt_tokens_details: details } = event.usage
        const rate = (made * 1000) / (performance.now() - start)
        $('status').textContent = `${made} tokens, ${rate.toFixed(0)} a second; ${details.cached_tokens} of ${given} prompt tokens were cached.`
      }
    }
  } catch (error) {
    $('status').textContent = error.name === 'AbortError' ? `Stopped after ${tokens.length} tokens.` : `Failed: ${error.message}`
  } finally {
    running = null
    $('run').disabled = false
    $('stop').disabled = true
  }
}

$('form').addEventListener('submit', (event) => {
  event.preventDefault()
  if (!running) void generate()
})
$('stop').addEventListener('click', () => running?.abort())

// The machine

/** Kind of time -> its colour, in the order in which they appeared. */
const colours = new Map()
const lanes = []

function colourOf(kind) {
  const known = colours.get(kind)
  if (known) return known
  const isWait = (name) => name.startsWith('waiting')
  const palette = isWait(kind) ? WAITING : COMPUTING
  const colour = palette[[...colours.keys()].filter((name) => isWait(name) === isWait(kind)).length % palette.length]
  colours.set(kind, colour)
  const item = document.createElement('li')
  const swatch = document.createElement('i')
  swatch.style.background = colour
  item.append(swatch, kind)
  $('legend').append(item)
  return colour
}

function laneOf(rank) {
  while (lanes.length <= rank) {
    const element = document.createElement('div')
    element.className = 'lane'
    const title = document.createElement('h3')
    const facts = document.createElement('span')
    title.append(`Rank ${lanes.length}`, facts)
    const canvas = document.createElement('canvas')
    canvas.setAttribute('role', 'img')
    element.append(title, canvas)
    $('lanes').append(element)
    lanes.push({ facts, canvas, history: [] })
  }
  return lanes[rank]
}

function draw({ canvas, history }) {
  const scale = devicePixelRatio || 1
  const [width, height] = [canvas.clientWidth, canvas.clientHeight]
  if (canvas.width !== width * scale) {
    canvas.width = width * scale
    canvas.height = height * scale
  }
  const context = canvas.getContext('2d')
  context.setTransform(scale, 0, 0, scale, 0, 0)
  context.clearRect(0, 0, width, height)
  const column = width / COLUMNS
  for (const [i, parts] of history.entries()) {
    const x = width - (history.length - i) * column
    let y = height
    for (const { kind, share } of parts) {
      const part = share * height
      y -= part
      context.fillStyle = colourOf(kind)
      context.fillRect(x, y, Math.max(1, column - 1), part)
    }
  }
}

function showLive({ models }) {
  const model = models.find(({ id }) => id === $('model').value) ?? models[0]
  if (!model) return
  $('rate').textContent = model.tokensPerSecond.toFixed(0)
  $('running').textContent = String(model.running)
  $('queued').textContent = String(model.queued)
  $('pages').textContent = `${model.pages.inUse} / ${model.pages.all}`
  for (const [rank, { parts, cacheBytesPerSecond, steps }] of model.ranks.entries()) {
    const lane = laneOf(rank)
    lane.history.push(parts)
    if (lane.history.length > COLUMNS) lane.history.shift()
    const busy = parts.reduce((sum, { share }) => sum + share, 0)
    const text = `${steps} steps, ${(cacheBytesPerSecond / 1e6).toFixed(1)} MB/s of cache read`
    lane.facts.textContent = text
    const spoken = parts.filter(({ share }) => share > 0.005).map(({ kind, share }) => `${kind} ${(share * 100).toFixed(0)} %`)
    lane.canvas.setAttribute('aria-label', `Rank ${rank}: ${busy < 0.005 ? 'idle' : spoken.join(', ')}; ${text}`)
    draw(lane)
  }
}

async function watch() {
  for (;;) {
    try {
      const response = await fetch('live', { headers: headers() })
      if (response.status === 401) {
        $('key-field').hidden = false
        $('live-status').textContent = 'The server asks for an API key.'
      } else if (!response.ok) throw new Error(await errorOf(response))
      else {
        $('live-status').textContent = 'Connected.'
        await listModels()
        for await (const event of events(response)) showLive(event)
      }
    } catch (error) {
      $('live-status').textContent = `Not connected: ${error.message}`
    }
    await new Promise((resolve) => setTimeout(resolve, 1000))
  }
}

async function listModels() {
  const response = await fetch('v1/models', { headers: headers() })
  if (!response.ok) return
  const { data } = await response.json()
  const chosen = $('model').value
  $('model').replaceChildren(...data.map(({ id }) => new Option(id, id, false, id === chosen)))
  const [first] = data
  if (first) $('model-facts').textContent = `${first.variant}, ${first.ranks} ranks, ${first.backend}, ${first.max_model_len} tokens of context.`
}

$('key').addEventListener('change', () => void listModels())
void watch()
