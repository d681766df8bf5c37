// What a refusal or a failure of the Hub means, and what its user can do.
import { HubError, TetradError } from '../errors.js'
import type { HubAddress } from './hub-address.js'
import type { HubSettings } from './hub-settings.js'

/** Statuses that another attempt may change. */
function isPassing(status: number): boolean {
  return status === 408 || status === 429 || status >= 500
}

/** The error of an answer that is no success. */
export function refusal(response: Response, address: HubAddress, { endpoint, token }: HubSettings): HubError {
  const { status, headers } = response
  const code = headers.get('x-error-code')
  const said = (headers.get('x-error-message') ?? '').slice(0, 200)
  const actual = `status ${status}${code ? `, ${code.slice(0, 60)}` : ''}${said ? `: ${said}` : ''}`
  const { repo, revision } = address
  if (code === 'GatedRepo' || status === 403) {
    return new HubError('HUB_DENIED', {
      what: `${repo} is not open to everybody`,
      expected: 'a token of an account that was granted access',
      actual,
      remedy: `Ask for access at ${endpoint}/${repo}, then set HF_TOKEN to a token of that account.`,
    })
  }
  if (status === 401) {
    const wrong = token !== undefined && code !== 'RepoNotFound'
    return new HubError('HUB_DENIED', {
      what: wrong
        ? `the Hub does not accept the token for ${repo}`
        : `the Hub shows no ${repo} to ${token ? 'this account' : 'a visitor without a token'}`,
      expected: wrong ? 'a token that is valid' : 'a public repository, or a token that may read it',
      actual,
      remedy: wrong
        ? 'Set HF_TOKEN to a valid token, or unset it for public repositories.'
        : 'Check the name. For a private repository set HF_TOKEN.',
    })
  }
  if (status === 404) {
    const [what, remedy] =
      code === 'RevisionNotFound'
        ? [`${repo} has no revision ${revision}`, `See the branches and commits at ${endpoint}/${repo}/commits/main.`]
        : code === 'EntryNotFound'
          ? [`${repo} at ${revision} has no ${pathOf(address)}`, `See its files at ${endpoint}/${repo}/tree/${revision}.`]
          : [`the Hub has no repository ${repo}`, 'Check the name. For a private repository set HF_TOKEN.']
    return new HubError('HUB_NOT_FOUND', { what, actual, remedy })
  }
  if (isPassing(status)) return unreachable(address, endpoint, actual)
  return new HubError('HUB_INVALID', {
    what: `the Hub refused a request for ${repo}`,
    expected: 'status 200',
    actual,
    remedy: `Check that ${endpoint} is a Hugging Face Hub (HF_ENDPOINT).`,
  })
}

function pathOf({ folder, file }: HubAddress): string {
  return file === undefined ? (folder === '' ? 'such file' : `folder ${folder}`) : `file ${folder === '' ? file : `${folder}/${file}`}`
}

/** The Hub did not answer, or its answers were cut too often. */
export function unreachable({ text }: HubAddress, endpoint: string, actual: string, cause?: unknown): HubError {
  return new HubError('HUB_UNREACHABLE', {
    what: `${text} cannot be fetched from ${endpoint}`,
    expected: 'an answer',
    actual,
    remedy: 'Check the network, and run it again: what was downloaded is kept. HF_ENDPOINT names another server.',
    cause,
  })
}

/** What the Hub sent is not what it announced. */
export function invalidAnswer(
  what: string,
  expected: string,
  actual: string,
  remedy = 'Run it again. If it stays so, the repository or a proxy is damaged.',
): HubError {
  return new HubError('HUB_INVALID', { what, expected, actual, remedy })
}

/** Why a connection failed, in the system's words. */
export function reasonOf(error: unknown): string {
  const { cause, message } = error as Error & { cause?: unknown }
  const inner = cause as (Error & { code?: string }) | undefined
  return inner?.message ? `${inner.message}` : (inner?.code ?? message)
}

export function stopped(): TetradError {
  return new TetradError('LOAD_ABORTED', { what: 'downloading was stopped by its signal', remedy: 'Start it again: what was downloaded is kept.' })
}
