// Where the Hub is and what it may be asked, by the environment variables that Python's huggingface_hub reads.
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { getHFHubCachePath, HUB_URL } from '@huggingface/hub'
import { invalidOption, show } from '../options/check.js'

export interface HubSettings {
  /** HF_ENDPOINT, without a slash at its end. */
  readonly endpoint: string
  /** HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. */
  readonly cacheDir: string
  /** HF_TOKEN, else what `hf auth login` stored. */
  readonly token: string | undefined
  /** HF_HUB_OFFLINE: nothing is asked, the cache must have the model. */
  readonly offline: boolean
  /** Longest wait for an answer, and for the next bytes of one. */
  readonly stallMs: number
  /** Wait before the first new attempt; it doubles with each. */
  readonly retryMs: number
}

/** Python's default is 10 s, which is short for the first byte of a large file. */
const STALL_MS = 30_000
const RETRY_MS = 1000
const TRUE = /^(1|on|yes|true)$/i

/** Throws OptionError OPTION_INVALID for a variable that cannot be used. */
export async function hubSettings(env: NodeJS.ProcessEnv = process.env): Promise<HubSettings> {
  const cacheDir = fromHome(getHFHubCachePath())
  const seconds = env.HF_HUB_DOWNLOAD_TIMEOUT
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || HUB_URL),
    cacheDir,
    token: await tokenOf(env, cacheDir),
    offline: TRUE.test(env.HF_HUB_OFFLINE ?? env.TRANSFORMERS_OFFLINE ?? ''),
    stallMs: seconds ? stallOf(seconds) : STALL_MS,
    retryMs: RETRY_MS,
  }
}

function fromHome(path: string): string {
  return path.replace(/^~(?=[\\/]|$)/, homedir())
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url && /^https?:$/.test(url.protocol) && url.search === '' && url.hash === '') return text.replace(/\/+$/, '')
  throw invalidOption({
    what: 'HF_ENDPOINT is not the address of a server',
    expected: 'a URL of http or https',
    actual: show(text),
    remedy: `Set it to a URL such as ${HUB_URL}, or unset it.`,
    option: 'HF_ENDPOINT',
  })
}

function stallOf(text: string): number {
  const seconds = Number(text)
  if (seconds > 0 && seconds <= 3600) return seconds * 1000
  throw invalidOption({
    what: 'HF_HUB_DOWNLOAD_TIMEOUT is out of range',
    expected: 'seconds from above 0 to 3600',
    actual: show(text),
    remedy: 'Set it to such a number, or unset it.',
    option: 'HF_HUB_DOWNLOAD_TIMEOUT',
  })
}

async function tokenOf(env: NodeJS.ProcessEnv, cacheDir: string): Promise<string | undefined> {
  const given = env.HF_TOKEN?.trim()
  if (!given && TRUE.test(env.HF_HUB_DISABLE_IMPLICIT_TOKEN ?? '')) return undefined
  const path = fromHome(env.HF_TOKEN_PATH || join(env.HF_HOME || dirname(cacheDir), 'token'))
  const token = given || (await readFile(path, 'utf8').catch(() => '')).trim()
  if (token === '') return undefined
  if (/^[\x21-\x7e]+$/.test(token)) return token
  throw invalidOption({
    what: given ? 'HF_TOKEN is not a token' : `${path} does not hold a token`,
    expected: 'printable ASCII characters without spaces',
    remedy: 'Copy the token again from the settings of your account.',
    option: 'HF_TOKEN',
  })
}
