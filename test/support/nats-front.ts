// A front in this process, of a cluster whose replicas are processes of their own.
import { setTimeout } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import OpenAI from 'openai'
import type { Engine } from '../../src/index.js'
import { Cluster } from '../../src/serve/nats/cluster.js'
import { NatsLink, type NatsOptions } from '../../src/serve/nats/connection.js'
import { createServer } from '../../src/serve/server.js'

const PROMPTS = ['Once upon a time', 'The king', 'In the forest', 'A fox and a hen', 'My mother said', 'Long ago']
const TOKENS = 300

export async function front(t: ExecutionContext, url: string, options: Partial<NatsOptions> = {}, log: string[] = []) {
  const link = await NatsLink.open({ url, ...options }, 'front', (text) => log.push(text))
  const joined = await Cluster.join(link, (text) => log.push(text))
  const server = createServer(joined.models)
  const address = await server.app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(async () => {
    await joined.close()
    await server.app.close()
    await link.close()
  })
  const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: 'none', maxRetries: 0, timeout: 120_000 })
  const until = async (pattern: RegExp) => {
    for (let i = 0; i < 1200; i++) {
      const found = log.map((line) => pattern.exec(line)).find(Boolean)
      if (found) return found
      await setTimeout(50)
    }
    throw new Error(`no ${pattern} in ${JSON.stringify(log)}`)
  }
  return {
    link,
    joined,
    client,
    log,
    until,
    model: () => joined.models.get('tiny')?.engine as NonNullable<ReturnType<typeof joined.models.get>>['engine'],
  }
}

/**
 * A function that streams all prompts at once and calls `meanwhile` when one has come to 20 tokens. It asserts that each text is the
 * engine's own, with no token missing.
 */
export function streamsAs(engine: Engine) {
  return async (t: ExecutionContext, client: OpenAI, meanwhile: () => void | Promise<void>): Promise<void> => {
    let happening: Promise<void> | undefined
    const texts = await Promise.all(
      PROMPTS.map(async (prompt, i) => {
        const request = { model: 'tiny', prompt, max_tokens: TOKENS, temperature: i % 2, seed: 5 + i, logprobs: 1 } as const
        const chunks = await client.completions.create({ ...request, stream: true, ...{ ignore_eos: true } })
        let text = ''
        let tokens = 0
        for await (const { choices } of chunks) {
          text += choices[0]?.text ?? ''
          tokens += choices[0]?.logprobs?.tokens?.length ?? 0
          if (!happening && tokens >= 20) happening = Promise.resolve(meanwhile())
        }
        t.is(tokens, TOKENS, prompt)
        return text
      }),
    )
    await happening
    for (const [i, prompt] of PROMPTS.entries()) {
      const alone = await engine.generate(prompt, { maxTokens: TOKENS, temperature: i % 2, seed: 5 + i, ignoreEos: true })
      t.is(texts[i], alone.text, prompt)
    }
  }
}
