// Bytes of a download as progress: how many of how many, how fast, and how long it will take.
import type { DownloadProgress } from '../options/public-types.js'

/** Speed is that of the last seconds. */
const WINDOW_MS = 5000
const SAMPLE_MS = 100

export class DownloadMeter {
  readonly #onProgress: ((progress: DownloadProgress) => void) | undefined
  readonly #now: () => number
  readonly #samples: { readonly at: number; readonly bytes: number }[] = []
  #total = 0
  #done = 0
  /** Over the network, in this run. */
  #got = 0
  #file = ''

  constructor(onProgress: ((progress: DownloadProgress) => void) | undefined, now: () => number = () => performance.now()) {
    this.#onProgress = onProgress
    this.#now = now
    this.#samples.push({ at: now(), bytes: 0 })
  }

  get gotBytes(): number {
    return this.#got
  }

  /** A file of `bytes` will be needed. */
  expect(bytes: number): void {
    this.#total += bytes
  }

  begin(file: string): void {
    this.#file = file
  }

  /** got: over the network; otherwise they were on disk. */
  add(bytes: number, got: boolean): void {
    this.#done += bytes
    if (got) this.#got += bytes
    const now = this.#now()
    const last = this.#samples.at(-1) as { at: number; bytes: number }
    if (now - last.at < SAMPLE_MS && this.#done < this.#total) return
    this.#samples.push({ at: now, bytes: this.#got })
    while (this.#samples.length > 2 && now - (this.#samples[0]?.at ?? now) > WINDOW_MS) this.#samples.shift()
    this.#report(now)
  }

  #report(now: number): void {
    const first = this.#samples[0] as { at: number; bytes: number }
    const bytesPerSecond = now > first.at ? ((this.#got - first.bytes) / (now - first.at)) * 1000 : 0
    const left = this.#total - this.#done
    this.#onProgress?.({
      file: this.#file,
      downloadedBytes: this.#done,
      totalBytes: this.#total,
      bytesPerSecond,
      secondsLeft: left === 0 ? 0 : bytesPerSecond > 0 ? left / bytesPerSecond : undefined,
    })
  }
}
