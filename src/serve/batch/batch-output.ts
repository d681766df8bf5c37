// The file of results: a line for each request, in the order in which they ended. What is there already is kept and not run again.
import { type FileHandle, open } from 'node:fs/promises'
import { BatchError, TetradError } from '../../errors.js'
import type { BatchFacts } from './batch-file.js'
import type { BatchResult } from './batch-request.js'

const READ_BYTES = 1 << 16
/** Every line begins so. */
const RESULT_START = '{"id":"batch_req_'
const NEWLINE = 0x0a
/** While lines are written, those before are on the disk after so long. */
const SYNC_MS = 1000

export class BatchOutput {
  readonly #path: string
  readonly #file: FileHandle
  readonly #lines: ReadonlyMap<string, number>
  readonly #done = new Set<string>()
  #failed = 0
  #at: number
  #writing: Promise<void> = Promise.resolve()
  #synced = performance.now()

  private constructor(path: string, file: FileHandle, lines: ReadonlyMap<string, number>, at: number) {
    this.#path = path
    this.#file = file
    this.#lines = lines
    this.#at = at
  }

  /**
   * Opens or makes the file. A last line without an end, from a process that was killed, is cut off.
   * fingerprints: of the models that run now. Throws BatchError BATCH_OUTPUT_MISMATCH, or TetradError OUTPUT_FAILED.
   */
  static async open(path: string, { lines }: BatchFacts, fingerprints: ReadonlyMap<string, string>): Promise<BatchOutput> {
    let file: FileHandle
    try {
      // Neither emptied nor appended to: what is written goes behind the last whole line.
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
        output.#known(text, fingerprints)
        output.#at = end
      }
      await output.#cutTail()
      return output
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** What a process that was killed left of a line goes; what is no beginning of a result is somebody else's. */
  async #cutTail(): Promise<void> {
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(RESULT_START.length), 0, RESULT_START.length, this.#at)
    const start = buffer.toString('utf8', 0, bytesRead)
    if (!RESULT_START.startsWith(start)) throw this.#mismatch('results of this batch', `a last line that begins with ${JSON.stringify(start)}`)
    await this.#file.truncate(this.#at)
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

  /** A second result of a request is dropped. Rejects with TetradError OUTPUT_FAILED. */
  async add(result: BatchResult): Promise<void> {
    const { custom_id: customId } = result
    if (this.#done.has(customId) || !this.#lines.has(customId)) return
    this.#count(customId, result)
    const bytes = Buffer.from(`${JSON.stringify(result)}\n`)
    const at = this.#at
    this.#at += bytes.length
    this.#writing = this.#writing.then(async () => {
      for (let written = 0; written < bytes.length; ) {
        const { bytesWritten } = await this.#file.write(bytes, written, bytes.length - written, at + written)
        written += bytesWritten
      }
      if (performance.now() - this.#synced < SYNC_MS) return
      await this.#file.datasync()
      this.#synced = performance.now()
    })
    await this.#writing.catch((cause: unknown) => {
      throw failed(this.#path, cause)
    })
  }

  /** All that was added is on the disk. Rejects with TetradError OUTPUT_FAILED. */
  async sync(): Promise<void> {
    await this.#writing
      .then(() => this.#file.sync())
      .catch((cause: unknown) => {
        throw failed(this.#path, cause)
      })
  }

  /** The same, and the file is closed. */
  async close(): Promise<void> {
    await this.sync().finally(() => this.#file.close())
  }

  #known(text: string, fingerprints: ReadonlyMap<string, string>): void {
    let result: Partial<BatchResult> | null
    try {
      result = JSON.parse(text) as Partial<BatchResult> | null
    } catch {
      throw this.#mismatch('results of this batch', 'a line that is no JSON')
    }
    const id = result?.custom_id
    if (result?.response === undefined || typeof id !== 'string' || !this.#lines.has(id) || this.#done.has(id)) {
      throw this.#mismatch('results of this batch, one for each request', `a line with custom_id ${JSON.stringify(id)?.slice(0, 100)}`)
    }
    const { model, system_fingerprint: fingerprint } = (result?.response?.body ?? {}) as { model?: string; system_fingerprint?: string }
    const now = model === undefined ? undefined : fingerprints.get(model)
    if (fingerprint !== undefined && now !== undefined && fingerprint !== `fp_${now}`) {
      throw this.#mismatch(`results of ${model} as it runs now, fp_${now}`, `one of ${fingerprint}: another version of the model, or another build`)
    }
    this.#count(id, result ?? {})
  }

  #count(customId: string, { response }: Partial<BatchResult>): void {
    this.#done.add(customId)
    if (!response || response.status_code >= 400) this.#failed++
  }

  #mismatch(expected: string, actual: string): BatchError {
    return new BatchError('BATCH_OUTPUT_MISMATCH', {
      what: `${this.#path} holds something else than results of this batch`,
      expected,
      actual,
      remedy: 'Name another file for the results, or remove this one.',
    })
  }
}

/** Lines that have their newline, and where each ends. */
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
    what: `${path} cannot be written`,
    actual: (cause as Error).message,
    remedy: 'Check the path, its permissions and the room on its disk.',
    cause,
  })
}
