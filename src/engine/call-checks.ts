// Checks of the arguments of engine calls. Knows no engine.
import { RequestError } from '../errors.js'
import { invalidOption, show } from '../options/check.js'

/** Logits of one engine.logits call, 2 GiB: a typed array cannot be much larger, and it is copied nowhere. */
const MAX_LOGITS_BYTES = 2 ** 31

/** Throws RequestError REQUEST_TOO_LARGE. */
export function checkLogits(tokens: number, vocab: number): void {
  const most = Math.floor(MAX_LOGITS_BYTES / (4 * vocab))
  if (tokens <= most) return
  throw new RequestError('REQUEST_TOO_LARGE', {
    what: `the logits of ${tokens} tokens do not fit one array`,
    expected: `at most ${most} tokens: ${vocab} logits of 4 bytes for each, ${MAX_LOGITS_BYTES} bytes in all`,
    actual: String(tokens),
    remedy: 'Call forEachLogits, which passes one row at a time.',
  })
}

/** Throws OptionError for what only generateMany takes. */
export function refuseMany(prompt: unknown, params: unknown): void {
  const isMany = Array.isArray(prompt) && (typeof prompt[0] === 'string' || Array.isArray(prompt[0]))
  const n = (params as { n?: unknown } | null)?.n
  if (!isMany && n === undefined) return
  throw invalidOption({
    what: isMany ? 'this call takes one prompt' : 'this call makes one completion and has no n',
    expected: isMany ? 'a text or an array of token ids' : 'no n',
    actual: isMany ? 'an array of prompts' : show(n),
    remedy: 'Call generateMany(prompts, { n }), which gives an array of completions.',
    option: isMany ? 'prompt' : 'n',
  })
}

/** Throws OptionError. */
export function checkPath(path: unknown): string {
  if (typeof path === 'string' && path !== '') return path
  throw invalidOption({
    what: 'the path of the snapshot has the wrong type',
    expected: 'a path',
    actual: show(path),
    remedy: 'Pass a path.',
    option: 'path',
  })
}
