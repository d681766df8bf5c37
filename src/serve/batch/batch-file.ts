// A file of batch requests, as OpenAI's batch API has it: a line of JSON for each, read a line at a time.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { Ajv } from 'ajv'
import { BatchError } from '../../errors.js'
import { withoutByteOrderMark } from '../../json.js'

export interface BatchLine {
  /** From 1 on. */
  readonly number: number
  readonly customId: string
  readonly url: '/v1/completions' | '/v1/chat/completions'
  readonly model: string
  readonly body: Readonly<Record<string, unknown>>
}

export interface BatchFacts {
  /** Of the whole file. */
  readonly digest: string
  /** custom_id -> number of its line. */
  readonly lines: ReadonlyMap<string, number>
  readonly models: ReadonlySet<string>
}

const MOST_LINE_BYTES = 16 << 20
const NEWLINE = 0x0a

const isRequest = new Ajv().compile<{ custom_id: string; url: BatchLine['url']; body: { model: string } & Record<string, unknown> }>({
  type: 'object',
  properties: {
    custom_id: { type: 'string', minLength: 1, maxLength: 512 },
    method: { const: 'POST' },
    url: { enum: ['/v1/completions', '/v1/chat/completions'] },
    body: { type: 'object', properties: { model: { type: 'string', minLength: 1 } }, required: ['model'] },
  },
  required: ['custom_id', 'method', 'url', 'body'],
  additionalProperties: false,
})

/** Reads and checks the whole file. Throws BatchError BATCH_INVALID, which names the line. */
export async function scanBatch(path: string): Promise<BatchFacts> {
  const hash = createHash('sha256')
  const lines = new Map<string, number>()
  const models = new Set<string>()
  for await (const { number, customId, model, body, url } of readBatch(path)) {
    const twice = lines.get(customId)
    if (twice !== undefined) throw invalid(path, number, 'a custom_id of its own', `${JSON.stringify(customId)}, as in line ${twice}`)
    lines.set(customId, number)
    models.add(model)
    hash.update(`${JSON.stringify([number, customId, url, body])}\n`)
  }
  if (lines.size === 0) throw invalid(path, 1, 'at least one request', 'none')
  return { digest: hash.digest('hex'), lines, models }
}

/** The requests, in order. Throws BatchError BATCH_INVALID. */
export async function* readBatch(path: string): AsyncGenerator<BatchLine, void, undefined> {
  for await (const { number, text } of readLines(path)) {
    if (text.trim() === '') continue
    let parsed: unknown
    try {
      parsed = JSON.parse(withoutByteOrderMark(text))
    } catch (error) {
      throw invalid(path, number, 'JSON', (error as Error).message)
    }
    if (!isRequest(parsed)) {
      const [first] = isRequest.errors ?? []
      throw invalid(
        path,
        number,
        'an object with custom_id, method POST, url /v1/completions or /v1/chat/completions, and body with model',
        `${first?.instancePath.slice(1) || 'the line'} ${first?.message ?? 'is wrong'}`,
      )
    }
    yield { number, customId: parsed.custom_id, url: parsed.url, model: parsed.body.model, body: parsed.body }
  }
}

/** Lines of a file; the last one may lack its newline. */
async function* readLines(path: string): AsyncGenerator<{ number: number; text: string }, void, undefined> {
  let number = 1
  let parts: Buffer[] = []
  let length = 0
  const take = (part: Buffer) => {
    parts.push(part)
    length += part.length
    if (length > MOST_LINE_BYTES) throw invalid(path, number, `at most ${MOST_LINE_BYTES} bytes`, 'a longer line')
  }
  const line = () => {
    const text = Buffer.concat(parts).toString('utf8')
    parts = []
    length = 0
    return { number: number++, text }
  }
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      let start = 0
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
        take(chunk.subarray(start, end))
        yield line()
        start = end + 1
      }
      take(chunk.subarray(start))
    }
  } catch (cause) {
    if (cause instanceof BatchError) throw cause
    throw new BatchError('BATCH_INVALID', {
      what: `${path} cannot be read`,
      expected: 'a file',
      actual: (cause as Error).message,
      remedy: 'Check the path and its permissions.',
      cause,
    })
  }
  if (length > 0) yield line()
}

function invalid(path: string, line: number, expected: string, actual: string): BatchError {
  return new BatchError('BATCH_INVALID', { what: `line ${line} of ${path} is no batch request`, expected, actual, remedy: 'Correct the line.' })
}
