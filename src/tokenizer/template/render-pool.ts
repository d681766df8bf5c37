// Templates are strangers' programs: each rendering has a time limit and a memory limit, in a thread that may be ended.
import { Piscina } from 'piscina'
import { assetUrl } from '../../assets.js'
import { RequestError } from '../../errors.js'
import { RENDER_LIMITS, type RenderTask } from './render-limits.js'

let pool: Piscina | undefined

/** Rejects with RequestError TEMPLATE_FAILED: the template threw, took too long or needed too much memory. */
export async function renderInThread(task: RenderTask): Promise<string> {
  pool ??= new Piscina({
    filename: assetUrl('dist/src/tokenizer/template/render-worker.js').href,
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: 60_000,
    resourceLimits: { maxOldGenerationSizeMb: RENDER_LIMITS.heapMiB },
  })
  const limit = new AbortController()
  // From when it is begun: others may be before it in the queue.
  const before = pool.queueSize + (pool.utilization > 0 ? 1 : 0)
  const timer = setTimeout(() => limit.abort(), RENDER_LIMITS.timeMs * (before + 1))
  try {
    return (await pool.run(task, { signal: limit.signal })) as string
  } catch (cause) {
    const late = limit.signal.aborted
    throw new RequestError('TEMPLATE_FAILED', {
      what: "the model's chat template could not render these messages",
      expected: `a text, within ${RENDER_LIMITS.timeMs} ms and ${RENDER_LIMITS.heapMiB} MiB`,
      actual: late ? `nothing after ${RENDER_LIMITS.timeMs} ms` : cause instanceof Error ? cause.message : String(cause),
      remedy: 'Send messages that the template supports (some ask for alternating roles), or use /v1/completions with a prompt of your own.',
      cause,
    })
  } finally {
    clearTimeout(timer)
  }
}
