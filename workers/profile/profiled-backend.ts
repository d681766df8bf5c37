// A kernel space that notes how long each call took. Used in place of the plain one when a profile is wanted.
import type { CacheFormat, CacheRow, KernelBackend, UnitGeometry } from '../../kernels/backend.js'
import type { PackedMatrix } from '../../kernels/packing.js'
import type { Rows } from '../../kernels/rows.js'
import { type EventName, eventId, type ProfileRecorder } from './profile-recorder.js'

export class ProfiledBackend implements KernelBackend {
  readonly #inner: KernelBackend
  readonly #recorder: ProfileRecorder
  /** Event of each known matrix. */
  readonly #matrices: ReadonlyMap<PackedMatrix, number>

  constructor(inner: KernelBackend, recorder: ProfileRecorder, matrices: ReadonlyMap<PackedMatrix, EventName>) {
    this.#inner = inner
    this.#recorder = recorder
    this.#matrices = new Map([...matrices].map(([matrix, name]) => [matrix, eventId(name)]))
  }

  get backend() {
    return this.#inner.backend
  }

  get scalarBytes() {
    return this.#inner.scalarBytes
  }

  get scalars() {
    return this.#inner.scalars
  }

  get weightBytesRead() {
    return this.#inner.weightBytesRead
  }

  get cacheBytesRead() {
    return this.#inner.cacheBytesRead
  }

  rows(ptr: number, width: number, stride?: number): Rows {
    return this.#inner.rows(ptr, width, stride)
  }

  matmul(w: PackedMatrix, x: Rows, y: Rows, tokens: number, scratch: number): void {
    const start = this.#recorder.now()
    this.#inner.matmul(w, x, y, tokens, scratch)
    this.#recorder.add(this.#matrices.get(w) ?? ID.matmul, start)
  }

  rmsNorm(x: Rows, weight: number, y: Rows, n: number, tokens: number, epsilon: number): void {
    const start = this.#recorder.now()
    this.#inner.rmsNorm(x, weight, y, n, tokens, epsilon)
    this.#recorder.add(ID.rmsNorm, start)
  }

  rope(x: Rows, headStride: number, heads: number, half: number, table: Rows, tokens: number): void {
    const start = this.#recorder.now()
    this.#inner.rope(x, headStride, heads, half, table, tokens)
    this.#recorder.add(ID.rope, start)
  }

  swiglu(gate: Rows, up: Rows, n: number, tokens: number): void {
    const start = this.#recorder.now()
    this.#inner.swiglu(gate, up, n, tokens)
    this.#recorder.add(ID.swiglu, start)
  }

  gateRows(x: Rows, gate: Rows, n: number, tokens: number): void {
    const start = this.#recorder.now()
    this.#inner.gateRows(x, gate, n, tokens)
    this.#recorder.add(ID.gateRows, start)
  }

  combineFactors(dst: Rows, a: Rows, b: Rows, heads: number, rank: number, width: number, tokens: number): void {
    const start = this.#recorder.now()
    this.#inner.combineFactors(dst, a, b, heads, rank, width, tokens)
    this.#recorder.add(ID.combineFactors, start)
  }

  sumPartials(dst: Rows, sources: readonly Rows[], n: number, tokens: number, factor: number): void {
    const start = this.#recorder.now()
    this.#inner.sumPartials(dst, sources, n, tokens, factor)
    this.#recorder.add(ID.sumPartials, start)
  }

  addRows(x: Rows, y: Rows, n: number, tokens: number): void {
    const start = this.#recorder.now()
    this.#inner.addRows(x, y, n, tokens)
    this.#recorder.add(ID.addRows, start)
  }

  gatherRow(w: PackedMatrix, row: number, dst: Rows): void {
    const start = this.#recorder.now()
    this.#inner.gatherRow(w, row, dst)
    this.#recorder.add(ID.gatherRow, start)
  }

  writeCacheRow(dst: number, src: Rows, t: number, row: CacheRow): void {
    const start = this.#recorder.now()
    this.#inner.writeCacheRow(dst, src, t, row)
    this.#recorder.add(ID.writeCacheRow, start)
  }

  copyBytes(dst: number, src: number, bytes: number): void {
    const start = this.#recorder.now()
    this.#inner.copyBytes(dst, src, bytes)
    this.#recorder.add(ID.copyBytes, start)
  }

  loadQueries(dst: number, src: Rows, t: number, headStride: number, heads: number, lanes: number, n: number, format: CacheFormat): void {
    const start = this.#recorder.now()
    this.#inner.loadQueries(dst, src, t, headStride, heads, lanes, n, format)
    this.#recorder.add(ID.loadQueries, start)
  }

  dotPage(query: number, page: number, row: CacheRow, out: number, lanes: number, tokens: number): void {
    const start = this.#recorder.now()
    this.#inner.dotPage(query, page, row, out, lanes, tokens)
    this.#recorder.add(ID.dotPage, start)
  }

  beginAttention(unit: UnitGeometry, z: Rows, t: number): void {
    const start = this.#recorder.now()
    this.#inner.beginAttention(unit, z, t)
    this.#recorder.add(ID.beginAttention, start)
  }

  attendPage(unit: UnitGeometry, page: number, shared: number, z: Rows, t: number, tokens: number): void {
    const start = this.#recorder.now()
    this.#inner.attendPage(unit, page, shared, z, t, tokens)
    this.#recorder.add(ID.attendPage, start)
  }

  finishAttention(unit: UnitGeometry, z: Rows, t: number): void {
    const start = this.#recorder.now()
    this.#inner.finishAttention(unit, z, t)
    this.#recorder.add(ID.finishAttention, start)
  }

  argmax(logits: Rows, t: number, n: number): number {
    const start = this.#recorder.now()
    const id = this.#inner.argmax(logits, t, n)
    this.#recorder.add(ID.sampling, start)
    return id
  }

  logProbability(logits: Rows, t: number, n: number, id: number): number {
    const start = this.#recorder.now()
    const value = this.#inner.logProbability(logits, t, n, id)
    this.#recorder.add(ID.sampling, start)
    return value
  }

  softWeights(logits: Rows, t: number, n: number, temperature: number, weights: number): number {
    const start = this.#recorder.now()
    const id = this.#inner.softWeights(logits, t, n, temperature, weights)
    this.#recorder.add(ID.sampling, start)
    return id
  }

  sample(logits: Rows, t: number, n: number, temperature: number, u: number, scratch: number): number {
    const start = this.#recorder.now()
    const id = this.#inner.sample(logits, t, n, temperature, u, scratch)
    this.#recorder.add(ID.sampling, start)
    return id
  }
}

const ID = {
  matmul: eventId('matmul'),
  rmsNorm: eventId('rmsNorm'),
  rope: eventId('rope'),
  swiglu: eventId('swiglu'),
  gateRows: eventId('gateRows'),
  combineFactors: eventId('combineFactors'),
  sumPartials: eventId('sumPartials'),
  addRows: eventId('addRows'),
  gatherRow: eventId('gatherRow'),
  writeCacheRow: eventId('writeCacheRow'),
  copyBytes: eventId('copyBytes'),
  loadQueries: eventId('loadQueries'),
  dotPage: eventId('dotPage'),
  beginAttention: eventId('beginAttention'),
  attendPage: eventId('attendPage'),
  finishAttention: eventId('finishAttention'),
  sampling: eventId('sampling'),
}
