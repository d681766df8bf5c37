// The model of a command as a path; one of the Hub is downloaded with a bar that says how fast and how long.
import { SingleBar } from 'cli-progress'
import { isHubAddress } from '../hub/hub-address.js'
import { localModel } from '../hub/local-model.js'
import type { DownloadProgress } from '../options/public-types.js'

/** Says on stderr what was downloaded, unless `quiet`. Rejects as pull does. */
export async function commandModel(model: string, signal: AbortSignal, quiet = false): Promise<string> {
  if (!isHubAddress(model)) return model
  const bar = downloadBar()
  const start = performance.now()
  let bytes = 0
  const path = await localModel(model, {
    signal,
    onDownload: (progress) => {
      bytes = progress.totalBytes
      bar.update(progress)
    },
  }).finally(() => bar.stop())
  if (!quiet && bytes > 0) {
    console.error(`downloaded ${model}: ${(bytes / 2 ** 20).toFixed(0)} MiB in ${((performance.now() - start) / 1000).toFixed(0)} s`)
  }
  return path
}

/** A bar for a download: how much of how much, how fast, and how long it will take. */
export function downloadBar(): { update(progress: DownloadProgress): void; stop(): void } {
  if (!process.stderr.isTTY) return { update: () => {}, stop: () => {} }
  const format = '{file} {bar} {percentage}% | {got} of {all} MiB | {speed} MiB/s | {left} left'
  const bar = new SingleBar({ stream: process.stderr, format, clearOnComplete: true, hideCursor: true })
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0)
  let started = false
  return {
    update: ({ file, downloadedBytes, totalBytes, bytesPerSecond, secondsLeft }) => {
      const speed = (bytesPerSecond / 2 ** 20).toFixed(1)
      const shown = { file, got: mib(downloadedBytes), all: mib(totalBytes), speed, left: secondsLeft === undefined ? '?' : readable(secondsLeft) }
      if (!started) bar.start(totalBytes, downloadedBytes, shown)
      started = true
      bar.setTotal(totalBytes)
      bar.update(downloadedBytes, shown)
    },
    stop: () => bar.stop(),
  }
}

function readable(seconds: number): string {
  const whole = Math.ceil(seconds)
  if (whole < 60) return `${whole} s`
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}
