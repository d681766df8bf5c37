// A file of batch requests, as in OpenAI's batch API: one JSON object a line, read line by line. What identifies a line must be right, or the
// file is refused; everything else that is wrong with a request is its own result.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { Ajv } from 'ajv'
import { BatchError } from '../../errors.js'
import { withoutByteOrderMark } from '../../json.js'
import { BATCH_URLS, type BatchRequest, resultId } from './batch-request.js'

export interface BatchLine extends BatchRequest {
  /** From 1 on. */
  readonly number: number
  /** '' if the body names none. */
  readonly model: string
}

export interface BatchFacts {
  /** Hash of all requests. */
  readonly digest: string
  /** By custom_id. */
  readonly lines: ReadonlyMap<string, { readonly number: number; readonly resultId: string }>
  /** Models that requests to a supported URL name. */
  readonly models: ReadonlySet<string>
}

const MAX_LINE_BYTES = 16 << 20
const NEWLINE = 0x0a

const isRequest = new Ajv().compile<{ custom_id: string; url: string; body: Record<string, unknown> }>({
  type: 'object',
  properties: {
    custom_id: { type: 'string', minLength: 1, maxLength: 512 },
    method: { const: 'POST' },
    url: { type: 'string' },
    body: { type: 'object' },
  },
  required: ['custom_id', 'method', 'url', 'body'],
  additionalProperties: false,
})

/** Reads and checks the whole file. Rejects with BatchError BATCH_INVALID, which names the line. */
export async function scanBatch(path: string): Promise<BatchFacts> {
  const hash = createHash('sha256')
  const lines = new Map<string, { number: number; resultId: string }>()
  const models = new Set<string>()
  for await (const line of readBatch(path)) {
    const { number, customId, model, body, url } = line
    const other = lines.get(customId)
    if (other !== undefined) throw invalid(path, number, 'a custom_id of its own', `${JSON.stringify(customId)}, as in line ${other.number}`)
    lines.set(customId, { number, resultId: resultId(line) })
    if (BATCH_URLS.has(url) && model !== '') models.add(model)
    hash.update(`${JSON.stringify([number, customId, url, body])}\n`)
  }
  if (lines.size === 0) throw invalid(path, 1, 'at least one request', 'an empty file')
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
        'an object with custom_id, method POST, url and body',
        `${first?.instancePath.slice(1) || 'the line'} ${first?.message ?? 'is invalid'}`,
      )
    }
    const { custom_id: customId, url, body } = parsed
    yield { number, customId, url, model: typeof body.model === 'string' ? body.model : '', body }
  }
}

/** Lines of a file. The last one may lack its newline. */
async function* readLines(path: string): AsyncGenerator<{ number: number; text: string }, void, undefined> {
  let number = 1
  let parts: Buffer[] = []
  let length = 0
  const take = (part: Buffer) => {
    parts.push(part)
    length += part.length
    if (length > MAX_LINE_BYTES) throw invalid(path, number, `at most ${MAX_LINE_BYTES} bytes`, 'a longer line')
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
      what: `cannot read ${path}`,
      expected: 'a file',
      actual: (cause as Error).message,
      remedy: 'Check the path and its permissions.',
      cause,
    })
  }
  if (length > 0) yield line()
}

function invalid(path: string, line: number, expected: string, actual: string): BatchError {
  return new BatchError('BATCH_INVALID', { what: `line ${line} of ${path} is not a batch request`, expected, actual, remedy: 'Correct the line.' })
}
