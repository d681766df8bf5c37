// Traffic of a soak: what clients of a server send on an ordinary day, a function of the seed alone.
import { type Random, randomOf } from '../stress/traffic.js'

/** How an answer is read: whole, as a stream, or as a stream that the client leaves after some events. */
export type Reading = { readonly kind: 'whole' } | { readonly kind: 'stream' } | { readonly kind: 'left'; readonly afterEvents: number }

export type Planned =
  | {
      readonly kind: 'generate'
      readonly path: string
      /** Without `stream`: the reading says it. */
      readonly body: Readonly<Record<string, unknown>>
      readonly reading: Reading
      /** It is sent again all the time; a request that is not is sent twice, at once. */
      readonly isStanding: boolean
    }
  | { readonly kind: 'wrong'; readonly path: string; readonly body: string; readonly type: string; readonly status: number }

type Body = Readonly<Record<string, unknown>>

const WORDS = 'the a wolf king seven old young forest went said and to house little came door bread gold with them night one'.split(' ')
/** Standing requests, whose answers are known after the first. */
const STANDING = 48
const SCHEMA = {
  type: 'object',
  properties: {
    kind: { enum: ['wolf', 'fox', 'king'] },
    age: { type: 'integer', minimum: 0, maximum: 200 },
    tame: { type: 'boolean' },
    friends: { type: 'array', items: { enum: ['bear', 'hare', 'owl'] }, maxItems: 3 },
  },
  required: ['kind', 'age', 'tame', 'friends'],
  additionalProperties: false,
}

/** Requests that a server must refuse, each with its status. */
const WRONG: readonly Omit<Extract<Planned, { kind: 'wrong' }>, 'kind'>[] = [
  ...(
    [
      [{ model: 'tiny', prompt: 'a', max_tokens: -7 }, 400],
      [{ model: 'tiny', prompt: 'a', temperature: 'hot' }, 400],
      [{ model: 'tiny', prompt: 'a', nonsense: 1 }, 400],
      [{ model: 'tiny' }, 400],
      [{ model: 'tiny', prompt: [5000] }, 400],
      [{ model: 'tiny', prompt: 'once upon a time '.repeat(4000) }, 400],
      [{ model: 'another', prompt: 'a' }, 404],
      [[1, 2], 400],
    ] as const
  ).map(([body, status]) => ({ path: '/v1/completions', body: JSON.stringify(body), type: 'application/json', status })),
  { path: '/v1/completions', body: '{"model": "tiny", ', type: 'application/json', status: 400 },
  { path: '/v1/completions', body: 'prompt=a', type: 'application/x-www-form-urlencoded', status: 415 },
  { path: '/v1/completions', body: ' '.repeat(9 * 2 ** 20), type: 'application/json', status: 413 },
  { path: '/v1/nowhere', body: '{}', type: 'application/json', status: 404 },
  {
    path: '/v1/chat/completions',
    body: JSON.stringify({ model: 'tiny', messages: [{ role: 'wizard', content: 'a' }] }),
    type: 'application/json',
    status: 400,
  },
  {
    path: '/v1/chat/completions',
    body: JSON.stringify({
      model: 'tiny',
      messages: [{ role: 'user', content: 'a' }],
      response_format: { type: 'json_schema', json_schema: { name: 'a', schema: { type: 'nothing' } } },
    }),
    type: 'application/json',
    status: 400,
  },
  { path: '/v1/messages', body: JSON.stringify({ model: 'tiny', messages: [] }), type: 'application/json', status: 400 },
]

/** A request of some kind. `adapter`: name of a LoRA adapter that the server has. */
function bodyOf(random: Random, adapter: string): { path: string; body: Body } {
  const int = (from: number, to: number) => from + Math.floor(random() * (to - from + 1))
  const pick = <T>(from: readonly T[]): T => from[int(0, from.length - 1)] as T
  const chance = (p: number) => random() < p
  const words = (n: number) => Array.from({ length: n }, () => pick(WORDS)).join(' ')
  const length = () => (chance(0.1) ? int(60, 250) : int(1, 30))
  const model = chance(0.25) ? adapter : 'tiny'
  const sampling = { seed: int(1, 1e6), temperature: chance(0.3) ? 0 : 0.5 + random(), ...(chance(0.3) && { top_p: 0.5 + 0.5 * random() }) }
  const tokens = chance(0.05) ? int(100, 200) : int(1, 40)
  const messages = [...(chance(0.3) ? [{ role: 'system', content: words(6) }] : []), { role: 'user', content: words(length()) }]
  const kind = random()
  if (kind < 0.4) {
    const prompt = chance(0.3) ? Array.from({ length: length() }, () => int(300, 4000)) : words(length())
    const more = { ...(chance(0.2) && { n: int(2, 3) }), ...(chance(0.2) && { repetition_penalty: 1.1 }), ...(chance(0.2) && { stop: [' wolf'] }) }
    return { path: '/v1/completions', body: { model, prompt, max_tokens: tokens, ...sampling, ...more } }
  }
  if (kind < 0.7) return { path: '/v1/chat/completions', body: { model, messages, max_tokens: tokens, ...sampling } }
  if (kind < 0.85) {
    const response_format = { type: 'json_schema', json_schema: { name: 'animal', schema: SCHEMA } }
    return { path: '/v1/chat/completions', body: { model, messages, max_tokens: 150, ...sampling, response_format } }
  }
  if (kind < 0.92) return { path: '/v1/responses', body: { model, input: words(length()), max_output_tokens: tokens, ...sampling } }
  return { path: '/v1/messages', body: { model, messages: messages.slice(-1), max_tokens: tokens, temperature: 0 } }
}

/** What arrives, one call after another: one request, or two of the same body. */
export function arrivals(seed: number, adapter: string): { gapMs: (perSecond: number) => number; next: () => Planned[] } {
  const random = randomOf(seed, 0)
  const standing = Array.from({ length: STANDING }, () => bodyOf(random, adapter))
  const reading = (): Reading =>
    random() < 0.45 ? { kind: 'whole' } : random() < 0.75 ? { kind: 'stream' } : { kind: 'left', afterEvents: Math.floor(8 * random()) }
  return {
    gapMs: (perSecond) => (-Math.log(1 - random()) / perSecond) * 1000,
    next: () => {
      const kind = random()
      if (kind < 0.1) return [{ kind: 'wrong', ...(WRONG[Math.floor(random() * WRONG.length)] as (typeof WRONG)[number]) }]
      if (kind < 0.6) {
        const request = standing[Math.floor(random() * STANDING)] as (typeof standing)[number]
        return [{ kind: 'generate', ...request, reading: reading(), isStanding: true }]
      }
      const request = bodyOf(random, adapter)
      return [reading(), { kind: 'stream' } as const].map((how) => ({ kind: 'generate', ...request, reading: how, isStanding: false }))
    },
  }
}
