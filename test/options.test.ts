// The option tables: what is derived from them agrees, and every caller's spelling is in the messages.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { Command } from 'commander'
import { engineOptions, generateParams, givenFor, inFlags, withEngineFlags, withFlags } from '../src/commands/flags.js'
import { type EngineOptions, type GenerateManyParams, OptionError } from '../src/index.js'
import { checkOptions, ENGINE_OPTIONS } from '../src/options/engine-options.js'
import type { Inputs } from '../src/options/entry.js'
import { checkParams, GENERATE_PARAMS } from '../src/options/generate-params.js'
import { HttpError } from '../src/serve/http-error.js'
import { generateParams as httpParams } from '../src/serve/request-schema.js'
import { ROOT } from './support/fixtures.js'

/** Compiles only if each can stand for the other. */
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false
const engineTypes: Same<EngineOptions, Inputs<typeof ENGINE_OPTIONS>> = true
const paramTypes: Same<GenerateManyParams, Inputs<typeof GENERATE_PARAMS>> = true

function parsed(...args: string[]) {
  const command = withFlags(withEngineFlags(new Command('x').exitOverride()), GENERATE_PARAMS)
  command.parse(args, { from: 'user' })
  return command.opts() as Record<string, unknown>
}

test('the types that are made from the tables, and the pages, are up to date', async (t) => {
  t.true(engineTypes && paramTypes)
  await t.notThrowsAsync(promisify(execFile)(process.execPath, ['scripts/options-doc.mjs', '--check'], { cwd: ROOT }))
})

test('every option and parameter has a flag, but for objects of the API, profile, which generate has as a file, and adapters, which are --lora', (t) => {
  const withoutFlag = Object.entries({ ...ENGINE_OPTIONS, ...GENERATE_PARAMS }).flatMap(([name, { flag }]) => (flag ? [] : [name]))
  t.deepEqual(withoutFlag, ['adapters', 'profile', 'onProgress', 'onDownload', 'signal', 'lora'])
})

test('flags become the values of the API', (t) => {
  const flags = parsed(
    ...['--ranks', '2', '--adapter', 'A', '--adapter', 'B', '--cache-bytes', '1000000', '--restart-window-ms', '5', '--gpu-checks'],
    ...['--n', '3', '--logit-bias', '5=-1.5,7=2', '--prompt-logprobs', '2', '--priority', '4', '--timeout-ms', '9', '--queue-timeout-ms', '8'],
    ...['--stop', 'a', '--stop', 'b', '--stop-token-ids', '1,2', '--speculate', '3,8', '--top-p', '0.5', '--bos'],
  )
  t.deepEqual(givenFor(ENGINE_OPTIONS, flags), {
    ranks: 2,
    adapter: ['A', 'B'],
    cacheBytes: 1_000_000,
    restartWindowMs: 5,
    gpuChecks: true,
  })
  const params = generateParams(flags)
  t.deepEqual(params, {
    ...{ n: 3, logitBias: { 5: -1.5, 7: 2 }, promptLogprobs: 2, priority: 4, timeoutMs: 9, queueTimeoutMs: 8 },
    ...{ stop: ['a', 'b'], stopTokenIds: [1, 2], speculate: { ngram: 3, maxTokens: 8 }, topP: 0.5, bos: true },
  })
  t.deepEqual(checkParams(params).logitBias, [
    [5, -1.5],
    [7, 2],
  ])
})

test('a wrong value is told in the spelling of the caller', (t) => {
  const message = (run: () => unknown) => {
    const error = t.throws(run, { instanceOf: OptionError }) as OptionError
    return [error.option, error.message]
  }
  for (const [run, option, pattern] of [
    [() => checkParams({ topP: 2 }), 'topP', /^topP is out of range/],
    [() => generateParams(parsed('--top-p', '2')), '--top-p', /^--top-p is out of range/],
    [() => generateParams(parsed('--max-tokens', 'many')), '--max-tokens', /^--max-tokens is out of range.*"many"/],
    [() => generateParams(parsed('--speculate', '3')), '--speculate', /^--speculate needs 2 integers .*Write --speculate 3,8/],
    [() => generateParams(parsed('--speculate', '3,99')), '--speculate', /^maxTokens of --speculate is out of range/],
    [() => checkParams({ speculate: { ngram: 3, maxTokens: 99 } }), 'speculate', /^speculate\.maxTokens is out of range/],
    [() => generateParams(parsed('--logit-bias', '5')), '--logit-bias', /^a value of --logit-bias/],
    [() => generateParams(parsed('--min-tokens', '9', '--max-tokens', '5')), '--min-tokens', /^--min-tokens is out of range.*0 to 5/],
    [() => engineOptions(parsed('--ranks', '3')), '--ranks', /^--ranks is not supported.*auto, 1, 2, 4.*3/],
    [() => engineOptions(parsed('--cache-tokens', '1', '--cache-bytes', '1')), '--cache-bytes', /^--cache-tokens and --cache-bytes are both given/],
    [() => checkOptions({ maxQue: 3 } as object), 'maxQue', /Did you mean maxQueue\?/],
    [() => checkOptions({ max_queue: 3 } as object), 'max_queue', /Did you mean maxQueue\?/],
    [() => checkOptions({ backend: 'wsam' as never }), 'backend', /Did you mean wasm\?/],
    [() => checkParams({ stopTokenIds: [7] }, 5), 'stopTokenIds', /^an id of stopTokenIds is out of range.*0 to 4/],
  ] as const) {
    const [named, text] = message(run)
    t.is(named, option)
    t.regex(text as string, pattern)
  }
})

test("HTTP fields: the client's name, its values for 'not set', and the default temperature of OpenAI", (t) => {
  const { signal } = new AbortController()
  const of = (body: object, maxTokens: number | undefined = 16, logprobs?: number) =>
    httpParams({ model: 'm', ...body }, maxTokens, logprobs, signal, { vocab: 100, timeoutMs: 50 })
  t.deepEqual(of({ top_k: -1, seed: -1, stop: '', stop_token_ids: [5], ignore_eos: true }), {
    ...{ temperature: 1, n: 1, maxTokens: 16, timeoutMs: 50, signal, stopTokenIds: [5], ignoreEos: true },
  })
  t.deepEqual(of({ top_k: 0, stop: ['', 'x'], seed: 3 }).stop, ['x'])
  for (const [run, param, pattern] of [
    [() => of({ top_p: 2 }), 'top_p', /^top_p is out of range/],
    [() => of({ temperature: -1 }), 'temperature', /^temperature is out of range/],
    [() => of({ n: 65 }), 'n', /^n is out of range/],
    [() => of({ logit_bias: { 100: 1 } }), 'logit_bias', /^an id of logit_bias is out of range.*0 to 99/],
    [() => of({ max_tokens: -2 }, -2), 'max_tokens', /^max_tokens is out of range/],
    [() => of({ max_completion_tokens: -1 }, -1), 'max_completion_tokens', /^max_completion_tokens is out of range/],
    [() => of({ top_logprobs: 21 }, 5, 21), 'top_logprobs', /^top_logprobs is out of range/],
    [() => of({ min_tokens: 17 }), 'min_tokens', /^min_tokens is out of range.*0 to 16/],
  ] as const) {
    const error = t.throws(run, { instanceOf: HttpError }) as HttpError
    t.is(error.status, 400)
    t.is(error.param, param)
    t.regex(error.message, pattern)
  }
})

test("the engine's messages are told with flags on the command line", (t) => {
  t.is(inFlags("This would fit: { cache: 'bf16', ranks: 4 }."), 'This would fit: --cache bf16 --ranks 4.')
  t.is(inFlags('load with a larger maxContext'), 'load with a larger --max-context')
  t.is(inFlags('stop cannot be used: Use stopTokenIds.', 'stop'), '--stop cannot be used: Use --stop-token-ids.')
  t.is(inFlags('the ranks stop'), 'the ranks stop')
})
