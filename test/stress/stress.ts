// Runs rounds of random traffic with faults, and checks every request against the same request alone on another engine, bit for bit.
import { getEventListeners } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Engine, type EngineOptions, OverloadedError, type RestartEvent, SnapshotError, TetradError } from '../../src/index.js'
import { injectFault, pages, type RecordedLogits, recordLogits } from '../../src/testing.js'
import { FIXTURES } from '../support/fixtures.js'
import { type PlannedRequest, planRound, type Round } from './traffic.js'

export interface Summary {
  rounds: number
  requests: number
  tokens: number
  /** Requests that ended as they had to: completed, aborted, or refused because the queue was full. */
  completed: number
  aborted: number
  overloaded: number
  malformed: number
  snapshots: number
  faults: number
  recoveries: number
  worstRecoveryMs: number
  /** Completions compared with the same request alone, and rows of logits of theirs. */
  compared: number
  comparedRows: number
  /** Sent, and neither completed nor aborted nor refused. */
  lost: number
  /** Compared and not equal. */
  different: number
  hung: number
}

export interface StressOptions {
  readonly seed: number
  /** First round, and how many at most. */
  readonly round: number
  readonly rounds: number
  readonly minutes: number
  /** Options of a GPU engine for every fourth round. */
  readonly gpu: EngineOptions | undefined
  readonly onRound: (summary: Summary, round: number) => void
}

/** Something that must not happen: with the round that repeats it. */
export class StressFailure extends Error {
  override readonly name = 'StressFailure'
}

/** No request takes so long but for a fault of the engine: it is hung. */
const HUNG_MS = 120_000

/** Throws StressFailure. */
export async function stress(options: StressOptions): Promise<Summary> {
  const summary: Summary = {
    rounds: 0,
    requests: 0,
    tokens: 0,
    completed: 0,
    aborted: 0,
    overloaded: 0,
    malformed: 0,
    snapshots: 0,
    faults: 0,
    recoveries: 0,
    worstRecoveryMs: 0,
    compared: 0,
    comparedRows: 0,
    lost: 0,
    different: 0,
    hung: 0,
  }
  const end = performance.now() + options.minutes * 60_000
  for (let round = options.round; round < options.round + options.rounds && performance.now() < end; round++) {
    try {
      await new RoundRun(planRound(options.seed, round, options.gpu), summary).run()
    } catch (error) {
      const reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
      throw new StressFailure(`seed ${options.seed}, round ${round}: ${reason}\nrepeat it with: npm run stress -- --replay ${options.seed}:${round}`)
    }
    summary.lost = summary.requests - summary.completed - summary.aborted - summary.overloaded
    if (summary.lost > 0) throw new StressFailure(`seed ${options.seed}, round ${round}: ${summary.lost} requests were lost`)
    summary.rounds++
    options.onRound(summary, round)
  }
  return summary
}

interface Outcome {
  readonly request: PlannedRequest
  readonly result: 'completed' | 'aborted' | 'overloaded'
  readonly tokens: readonly number[]
}

class RoundRun {
  readonly #round: Round
  readonly #summary: Summary
  readonly #dir = mkdtempSync(join(tmpdir(), 'tetrad-stress-'))
  readonly #outcomes: Promise<Outcome>[] = []

  constructor(round: Round, summary: Summary) {
    this.#round = round
    this.#summary = summary
  }

  async run(): Promise<void> {
    const { model, options } = this.#round
    const engine = await Engine.load(`${FIXTURES}golden/${model}`, options)
    const recorder = recordLogits(engine)
    engine.on('restart', (event) => this.#noteRestart(event))
    try {
      for (const step of this.#round.steps) {
        if (step.kind === 'requests') for (const request of step.requests) this.#outcomes.push(this.#send(engine, request))
        if (step.kind === 'fault') this.#fault(engine, step)
        if (step.kind === 'malformed') await this.#malformed(engine, step)
        if (step.kind === 'snapshot') await this.#snapshot(engine, step)
        await setTimeout(step.pauseMs)
      }
      const outcomes = await inTime(this.#summary, 'requests', Promise.all(this.#outcomes))
      recorder.stop()
      await this.#settled(engine)
      await this.#compare(outcomes, recorder.rows)
    } finally {
      await inTime(this.#summary, 'closing', engine.close())
      rmSync(this.#dir, { recursive: true })
    }
  }

  #noteRestart({ recoveryMs }: RestartEvent): void {
    this.#summary.recoveries++
    this.#summary.worstRecoveryMs = Math.max(this.#summary.worstRecoveryMs, recoveryMs)
  }

  #fault(
    engine: Engine,
    {
      rank,
      fault,
      stage,
    }: { rank: number; fault: Parameters<typeof injectFault>[1]['kind']; stage: Parameters<typeof injectFault>[1]['stage'] & string },
  ): void {
    injectFault(engine, { rank, kind: fault, stage })
    this.#summary.faults++
  }

  async #send(engine: Engine, request: PlannedRequest): Promise<Outcome> {
    const { prompt, params, abortAfter, slowReaderMs } = request
    this.#summary.requests++
    const abort = new AbortController()
    const tokens: number[] = []
    try {
      const generation = engine.generate(prompt, { ...params, signal: abort.signal })
      if (abortAfter === 0) abort.abort()
      if (abortAfter !== undefined || slowReaderMs !== undefined) {
        for await (const chunk of generation) {
          tokens.push(...chunk.tokens)
          if (slowReaderMs !== undefined) await setTimeout(slowReaderMs)
          if (abortAfter !== undefined && tokens.length >= abortAfter) abort.abort()
        }
      }
      const completion = await generation
      if (getEventListeners(abort.signal, 'abort').length > 0) throw new StressFailure('a listener was left on a signal')
      this.#summary.tokens += completion.tokens.length
      if (completion.finishReason === 'abort') this.#summary.aborted++
      else this.#summary.completed++
      return { request, result: completion.finishReason === 'abort' ? 'aborted' : 'completed', tokens: completion.tokens }
    } catch (error) {
      if (!(error instanceof OverloadedError)) throw error
      this.#summary.overloaded++
      return { request, result: 'overloaded', tokens: [] }
    }
  }

  async #malformed(engine: Engine, { prompt, params }: { prompt: unknown; params: unknown }): Promise<void> {
    this.#summary.malformed++
    try {
      await engine.generate(prompt as number[], params as object)
    } catch (error) {
      if (error instanceof TetradError) return
      throw error
    }
    throw new StressFailure(`${JSON.stringify([prompt, params])} was not refused`)
  }

  /** Saves what is cached of a prompt, and loads it again; or loads a corrupted copy, which must be refused. */
  async #snapshot(engine: Engine, { prompt, corrupt }: { prompt: readonly number[]; corrupt: number | undefined }): Promise<void> {
    const path = join(this.#dir, 'prefix.snapshot')
    try {
      await engine.saveSnapshot(prompt, path)
      this.#summary.snapshots++
      if (corrupt !== undefined) {
        const bytes = readFileSync(path)
        const at = Math.floor(corrupt * bytes.length)
        bytes[at] = (bytes[at] as number) ^ 0x55
        writeFileSync(path, bytes)
      }
      await engine.loadSnapshot(path)
      if (corrupt !== undefined) throw new StressFailure('a corrupted snapshot was loaded')
    } catch (error) {
      if (error instanceof OverloadedError) return
      if (!(error instanceof SnapshotError)) throw error
      if (corrupt === undefined && error.code !== 'SNAPSHOT_NO_ROOM') throw error
    }
    const left = readdirSync(this.#dir).filter((name) => name !== 'prefix.snapshot')
    if (left.length > 0) throw new StressFailure(`files were left: ${left.join()}`)
  }

  /** Nothing runs, waits or holds a page. */
  async #settled(engine: Engine): Promise<void> {
    for (let i = 0; i < 1000; i++) {
      const { running, queued } = engine.stats()
      const { free, all } = pages(engine)
      if (running === 0 && queued === 0 && free === all) return
      await setTimeout(10)
    }
    throw new StressFailure(`it does not come to rest: ${JSON.stringify([engine.stats().running, engine.stats().queued, pages(engine)])}`)
  }

  /** Every request alone on a fresh engine, one after another: the same tokens, and the same bits of every row of logits. */
  async #compare(outcomes: readonly Outcome[], rows: readonly RecordedLogits[]): Promise<void> {
    const seen = new Map<string, string>()
    for (const { seed, position, hash } of rows) {
      const key = `${seed} ${position}`
      const before = seen.get(key)
      if (before !== undefined && before !== hash) throw new StressFailure(`position ${position} of request ${seed} had two results`)
      seen.set(key, hash)
    }
    const { model, options } = this.#round
    const { maxQueue: _, cacheTokens: __, stepDeadlineMs: ___, maxRestarts: ____, ...same } = options
    const alone = await Engine.load(`${FIXTURES}golden/${model}`, { ...same, ranks: 1, prefillChunk: 64 })
    try {
      for (const { request, result, tokens } of outcomes) {
        if (result === 'overloaded') continue
        this.#summary.compared++
        this.#summary.different++
        const { prompt, params } = request
        const { speculate: _s, ...plain } = params
        const recorder = recordLogits(alone)
        const expected = await alone.generate(prompt, plain)
        recorder.stop()
        const upTo = result === 'aborted' ? tokens.length : expected.tokens.length
        if (tokens.join() !== expected.tokens.slice(0, upTo).join()) {
          throw new StressFailure(`request ${params.seed} has other tokens than alone: ${tokens.join()} instead of ${expected.tokens.join()}`)
        }
        const own = recorder.rows.filter(({ position }) => position < prompt.length + upTo - 1)
        this.#summary.comparedRows += own.length
        for (const { position, hash } of own) {
          if (seen.get(`${params.seed} ${position}`) !== hash)
            throw new StressFailure(`request ${params.seed}: other logits at position ${position} than alone`)
        }
        // It is as it was alone.
        this.#summary.different--
      }
    } finally {
      await alone.close()
    }
  }
}

async function inTime<T>(summary: Summary, what: string, work: Promise<T>): Promise<T> {
  const done = new AbortController()
  const late = setTimeout(HUNG_MS, undefined, { signal: done.signal }).then(
    () => {
      summary.hung++
      throw new StressFailure(`hung: ${what} did not end within ${HUNG_MS / 1000} s`)
    },
    () => undefined as never,
  )
  try {
    return await Promise.race([work, late])
  } finally {
    done.abort()
  }
}
