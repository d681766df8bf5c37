// The file of results: one line for each request, in the order in which they ended. Results that are in the file are kept and not run again.
import { type FileHandle, open } from 'node:fs/promises'
import { BatchError, TetradError } from '../../errors.js'
import type { BatchFacts } from './batch-file.js'
import type { BatchResult } from './batch-request.js'

const READ_BYTES = 1 << 16
/** Beginning of every line. */
const RESULT_START = '{"id":"batch_req_'
const NEWLINE = 0x0a
/** Written lines are on the disk after this time at most, milliseconds. */
const SYNC_MS = 1000

export class BatchOutput {
  readonly #path: string
  readonly #file: FileHandle
  readonly #lines: BatchFacts['lines']
  readonly #done = new Set<string>()
  #failed = 0
  /** Where the next line goes. */
  #end: number
  #writing: Promise<void> = Promise.resolve()
  #syncedAt = performance.now()

  private constructor(path: string, file: FileHandle, lines: BatchFacts['lines'], end: number) {
    this.#path = path
    this.#file = file
    this.#lines = lines
    this.#end = end
  }

  /**
   * Opens or creates the file. An incomplete last line, left by a process that was killed, is cut off.
   * fingerprints: of the models as they run now, by name. Rejects with BatchError BATCH_OUTPUT_MISMATCH, also if a request has changed since its
   * result was written, or TetradError OUTPUT_FAILED.
   */
  static async open(path: string, { lines }: BatchFacts, fingerprints: ReadonlyMap<string, string>): Promise<BatchOutput> {
    let file: FileHandle
    try {
      // 'a+' creates it without truncating; 'r+' allows writing after the last whole line.
      file = await open(path, 'a+').then(async (made) => {
        await made.close()
        return open(path, 'r+')
      })
    } catch (cause) {
      throw failed(path, cause)
    }
    try {
      const output = new BatchOutput(path, file, lines, 0)
      for await (const { text, end } of wholeLines(file)) {
        output.#takeOld(text, fingerprints)
        output.#end = end
      }
      await output.#cutTail()
      return output
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** Cuts an incomplete line off. Text that cannot be the beginning of a result belongs to somebody else. */
  async #cutTail(): Promise<void> {
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(RESULT_START.length), 0, RESULT_START.length, this.#end)
    const start = buffer.toString('utf8', 0, bytesRead)
    if (!RESULT_START.startsWith(start)) throw this.#mismatch('results of this batch', `a last line that begins with ${JSON.stringify(start)}`)
    await this.#file.truncate(this.#end)
  }

  has(customId: string): boolean {
    return this.#done.has(customId)
  }

  get done(): number {
    return this.#done.size
  }

  /** Results without a response, or with a status of 400 or more. */
  get failed(): number {
    return this.#failed
  }

  /** Appends a result. Does nothing if the file has it, or if it is not of this batch. Rejects with TetradError OUTPUT_FAILED. */
  async add(result: BatchResult): Promise<void> {
    const { custom_id: customId } = result
    if (this.#done.has(customId) || !this.#lines.has(customId)) return
    this.#count(customId, result)
    const bytes = Buffer.from(`${JSON.stringify(result)}\n`)
    const at = this.#end
    this.#end += bytes.length
    this.#writing = this.#writing.then(async () => {
      for (let written = 0; written < bytes.length; ) {
        const { bytesWritten } = await this.#file.write(bytes, written, bytes.length - written, at + written)
        written += bytesWritten
      }
      if (performance.now() - this.#syncedAt < SYNC_MS) return
      await this.#file.datasync()
      this.#syncedAt = performance.now()
    })
    await this.#writing.catch((cause: unknown) => {
      throw failed(this.#path, cause)
    })
  }

  /** Resolves when everything that was added is on the disk. Rejects with TetradError OUTPUT_FAILED. */
  async sync(): Promise<void> {
    await this.#writing
      .then(() => this.#file.sync())
      .catch((cause: unknown) => {
        throw failed(this.#path, cause)
      })
  }

  /** Syncs and closes the file. */
  async close(): Promise<void> {
    await this.sync().finally(() => this.#file.close())
  }

  /** Takes a line of an earlier run. */
  #takeOld(text: string, fingerprints: ReadonlyMap<string, string>): void {
    let result: Partial<BatchResult> | null
    try {
      result = JSON.parse(text) as Partial<BatchResult> | null
    } catch {
      throw this.#mismatch('results of this batch', 'a line that is not JSON')
    }
    const id = result?.custom_id
    const line = typeof id === 'string' ? this.#lines.get(id) : undefined
    if (result?.response === undefined || id === undefined || !line || this.#done.has(id)) {
      throw this.#mismatch('results of this batch, one for each request', `a line with custom_id ${JSON.stringify(id)?.slice(0, 100)}`)
    }
    if (result.id !== line.resultId) {
      throw new BatchError('BATCH_OUTPUT_MISMATCH', {
        what: `${this.#path} has the result of another request with custom_id ${JSON.stringify(id).slice(0, 100)}`,
        expected: `the result ${line.resultId} of the request in line ${line.number} as it is now`,
        actual: String(result.id).slice(0, 100),
        remedy:
          'The request was changed after its result was written: give it a new custom_id, remove its result, or name another file for the results.',
      })
    }
    const { model, system_fingerprint: fingerprint } = (result.response?.body ?? {}) as { model?: string; system_fingerprint?: string }
    const now = model === undefined ? undefined : fingerprints.get(model)
    if (fingerprint !== undefined && now !== undefined && fingerprint !== `fp_${now}`) {
      throw this.#mismatch(`results of ${model} as it runs now, fp_${now}`, `one of ${fingerprint}: another version of the model, or another build`)
    }
    this.#count(id, result)
  }

  #count(customId: string, { response }: Partial<BatchResult>): void {
    this.#done.add(customId)
    if (!response || response.status_code >= 400) this.#failed++
  }

  #mismatch(expected: string, actual: string): BatchError {
    return new BatchError('BATCH_OUTPUT_MISMATCH', {
      what: `${this.#path} contains something other than results of this batch`,
      expected,
      actual,
      remedy: 'Name another file for the results, or remove this one.',
    })
  }
}

/** Lines that end with a newline, and where each ends. */
async function* wholeLines(file: FileHandle): AsyncGenerator<{ text: string; end: number }, void, undefined> {
  let rest = Buffer.alloc(0)
  let position = 0
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(READ_BYTES), 0, READ_BYTES, position)
    if (bytesRead === 0) return
    const start = position - rest.length
    position += bytesRead
    const data = Buffer.concat([rest, buffer.subarray(0, bytesRead)])
    let from = 0
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, from)) {
      yield { text: data.toString('utf8', from, end), end: start + end + 1 }
      from = end + 1
    }
    rest = data.subarray(from)
  }
}

function failed(path: string, cause: unknown): TetradError {
  return new TetradError('OUTPUT_FAILED', {
    what: `cannot write ${path}`,
    actual: (cause as Error).message,
    remedy: 'Check the path, its permissions and the free space on its disk.',
    cause,
  })
}
