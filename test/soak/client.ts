// The client of a soak: sends a planned request, and checks the status, the form and the text of its answer.
import type { Planned } from './traffic.js'

/** What an answer says, whatever way it was read: of each choice its text and why it ended. */
type Said = readonly { readonly text: string; readonly finish: string }[]

// biome-ignore lint/suspicious/noExplicitAny: answers of four endpoints, whose fields are compared, not used
type Json = any

/** What must not happen. */
export class WrongAnswer extends Error {}

const keyOf = (path: string, body: object) => `${path} ${JSON.stringify(body)}`

const wrong = (what: string): never => {
  throw new WrongAnswer(what)
}

export class Client {
  readonly #url: string
  /** By path and body. */
  readonly #known = new Map<string, Said>()

  constructor(url: string) {
    this.#url = url
  }

  /** Resolves once the request is done. Throws WrongAnswer. */
  async send(planned: Planned): Promise<void> {
    if (planned.kind === 'wrong') return this.#refused(planned)
    const { path, body, reading } = planned
    const key = keyOf(path, body)
    const known = this.#known.get(key)
    if (reading.kind === 'left') {
      const said = await this.#leave(path, body, reading.afterEvents)
      said.forEach(({ text }, i) => {
        if (known !== undefined && !known[i]?.text.startsWith(text)) wrong(`${key}: left at ${JSON.stringify(text)}, known ${JSON.stringify(known)}`)
      })
      return
    }
    const said = reading.kind === 'whole' ? await this.#whole(path, body) : await this.#stream(path, body)
    // Of two at once, the first that ends is what the other is compared with.
    const before = this.#known.get(key)
    if (before === undefined) this.#known.set(key, said)
    else if (JSON.stringify(before) !== JSON.stringify(said)) wrong(`${key}: ${JSON.stringify(said)}, before ${JSON.stringify(before)}`)
    checkSchema(body, said)
  }

  /** Forgets the answer to a request that will not come again. */
  forget({ path, body }: Pick<Extract<Planned, { kind: 'generate' }>, 'path' | 'body'>): void {
    this.#known.delete(keyOf(path, body))
  }

  #post(path: string, body: string, type: string, signal?: AbortSignal): Promise<Response> {
    return fetch(this.#url + path, { method: 'POST', headers: { 'content-type': type }, body, ...(signal && { signal }) })
  }

  async #refused({ path, body, type, status }: Extract<Planned, { kind: 'wrong' }>): Promise<void> {
    const response = await this.#post(path, body, type)
    const text = await response.text()
    const { error } = JSON.parse(text) as Json
    if (response.status !== status || !error?.message) wrong(`${path} ${body.slice(0, 200)}: ${response.status} ${text}, expected ${status}`)
  }

  async #accepted(path: string, body: object, signal?: AbortSignal): Promise<Response> {
    const response = await this.#post(path, JSON.stringify(body), 'application/json', signal)
    return response.status === 200 ? response : wrong(`${path} ${JSON.stringify(body)}: ${response.status} ${await response.text()}`)
  }

  async #whole(path: string, body: object): Promise<Said> {
    const answer = (await (await this.#accepted(path, body)).json()) as Json
    if (path === '/v1/messages') return [{ text: answer.content.map((part: Json) => part.text).join(''), finish: answer.stop_reason }]
    if (path === '/v1/responses') return [{ text: answer.output.map(textOfItem).join(''), finish: finishOfResponse(answer) }]
    return answer.choices.map((choice: Json) => ({ text: choice.text ?? choice.message.content ?? '', finish: choice.finish_reason }))
  }

  async #stream(path: string, body: object): Promise<Said> {
    const heard = new Heard()
    for await (const event of events(await this.#accepted(path, { ...body, stream: true }))) heard.take(event)
    return heard.isDone ? heard.said() : wrong(`${path} ${JSON.stringify(body)}: the stream ended early`)
  }

  /** Reads some events, then leaves; with 0, as soon as the answer begins. */
  async #leave(path: string, body: object, afterEvents: number): Promise<Said> {
    const controller = new AbortController()
    const heard = new Heard()
    const response = await this.#accepted(path, { ...body, stream: true }, controller.signal)
    let seen = 0
    if (afterEvents > 0) {
      for await (const event of events(response)) {
        heard.take(event)
        if (++seen === afterEvents) break
      }
    }
    controller.abort()
    return heard.said()
  }
}

/** The texts of a stream, from the events of any of the four endpoints. */
class Heard {
  readonly #texts: string[] = []
  readonly #finishes: string[] = []
  isDone = false

  take(data: string): void {
    if (data === '[DONE]') {
      this.isDone = true
      return
    }
    const event = JSON.parse(data) as Json
    if (event.error) wrong(`an error within a stream: ${data}`)
    if (event.type === 'message_stop' || event.type === 'response.completed' || event.type === 'response.incomplete') this.isDone = true
    if (event.type === 'response.completed' || event.type === 'response.incomplete') this.#finishes[0] = finishOfResponse(event.response)
    if (event.type === 'response.output_text.delta') this.#add(0, event.delta)
    if (event.type === 'content_block_delta') this.#add(0, event.delta.text)
    if (event.type === 'message_delta') this.#finishes[0] = event.delta.stop_reason
    for (const choice of event.choices ?? []) {
      this.#add(choice.index, choice.text ?? choice.delta.content ?? '')
      if (choice.finish_reason) this.#finishes[choice.index] = choice.finish_reason
    }
  }

  said(): Said {
    const count = Math.max(this.#texts.length, this.#finishes.length)
    return Array.from({ length: count }, (_, i) => ({ text: this.#texts[i] ?? '', finish: this.#finishes[i] ?? '' }))
  }

  #add(index: number, text: string): void {
    this.#texts[index] = (this.#texts[index] ?? '') + text
  }
}

const textOfItem = (item: Json): string => (item.content ?? []).map((part: Json) => part.text).join('')
const finishOfResponse = (response: Json): string => response.incomplete_details?.reason ?? response.status

/** Data of a stream's server-sent events. */
async function* events(response: Response): AsyncGenerator<string> {
  let rest = ''
  for await (const piece of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.startsWith('data: ')) yield line.slice(6)
  }
}

/** An answer under a schema that ended by itself is JSON with the schema's fields. */
function checkSchema(body: Readonly<Record<string, unknown>>, said: Said): void {
  const format = body.response_format as { json_schema: { schema: { required: string[] } } } | undefined
  if (format === undefined) return
  for (const { text, finish } of said) {
    if (finish !== 'stop') continue
    const keys = Object.keys(JSON.parse(text) as object)
    if (keys.toSorted().join() !== format.json_schema.schema.required.toSorted().join()) wrong(`not of its schema: ${text}`)
  }
}
