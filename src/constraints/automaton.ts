// What may follow, byte by byte: the states of a network that a text may be in, found as texts come, and remembered. A position is a set of pairs of a
// state and a stack (the states after the rules that are open). Each set has a number, and a row of the table says where each byte leads.
import { LAST, type Network, type State } from './network.js'
import { Refused } from './unsupported.js'

const NOWHERE = -1
/** Pairs of one position. */
const MAX_PAIRS = 20_000
const MAX_STACKS = 2_000_000
/** The stack on which no rule is open. */
const EMPTY = 0

interface Position {
  /** State, stack, state, stack, ...: of states with edges of bytes. */
  readonly pairs: readonly number[]
  /** The text may end here. */
  readonly ends: boolean
}

export class Automaton {
  readonly #states: readonly State[]
  readonly #positions: Position[] = []
  readonly #ids = new Map<string, number>()
  /** By pairs before rules are entered and left. */
  readonly #reached = new Map<string, number>()
  /** Stacks: the state on top, and the stack below. */
  readonly #tops: number[] = [LAST]
  readonly #below: number[] = [EMPTY]
  readonly #stacks = new Map<number, number>()
  /** [positions][256] */
  #table = new Int32Array(256 * 64)
  #known = new Uint8Array(64)
  readonly start: number

  constructor(network: Network, start: number) {
    this.#states = network.states
    this.start = this.#reach([start, EMPTY])
  }

  get positions(): number {
    return this.#positions.length
  }

  /** The text may end at this position. */
  ends(position: number): boolean {
    return (this.#positions[position] as Position).ends
  }

  /** By position and byte (256 position + byte): the next position, or -1. Valid until the next call of `know`. */
  get table(): Int32Array {
    return this.#table
  }

  /** Makes the row of a position. */
  know(position: number): void {
    if (this.#known[position] === 1) return
    const edges = this.#edges(position)
    const cuts = new Uint8Array(257)
    for (let e = 0; e < edges.length; e += 4) {
      cuts[edges[e] as number] = 1
      cuts[(edges[e + 1] as number) + 1] = 1
    }
    const row = new Int32Array(256).fill(NOWHERE)
    for (let from = 0; from < 256; ) {
      let to = from + 1
      while (to < 256 && cuts[to] === 0) to++
      const pairs: number[] = []
      for (let e = 0; e < edges.length; e += 4)
        if ((edges[e] as number) <= from && (edges[e + 1] as number) >= from) pairs.push(edges[e + 2] as number, edges[e + 3] as number)
      if (pairs.length > 0) row.fill(this.#reach(pairs), from, to)
      from = to
    }
    this.#grow()
    this.#table.set(row, 256 * position)
    this.#known[position] = 1
  }

  /** Of a position: from, to, next state, stack, ... */
  #edges(position: number): readonly number[] {
    const { pairs } = this.#positions[position] as Position
    const edges: number[] = []
    for (let i = 0; i < pairs.length; i += 2)
      for (const [from, to, next] of this.#state(pairs[i] as number).bytes) edges.push(from, to, next, pairs[i + 1] as number)
    return edges
  }

  #state(state: number): State {
    return this.#states[state] as State
  }

  #grow(): void {
    if (this.#positions.length <= this.#known.length) return
    const size = 2 * this.#positions.length
    const [table, known] = [new Int32Array(256 * size), new Uint8Array(size)]
    table.set(this.#table)
    known.set(this.#known)
    this.#table = table
    this.#known = known
  }

  /** The position of these pairs of states and stacks, after all that can be entered and left without a byte. */
  #reach(pairs: readonly number[]): number {
    const key = pairs.join()
    const known = this.#reached.get(key)
    if (known !== undefined) return known
    const states = this.#states.length
    const found = new Set<number>()
    const work: number[] = []
    const visit = (state: number, stack: number) => {
      const pair = stack * states + state
      if (found.has(pair)) return
      found.add(pair)
      work.push(state, stack)
      if (found.size > MAX_PAIRS) throw new Refused('it can be read in too many ways at once')
    }
    for (let i = 0; i < pairs.length; i += 2) visit(pairs[i] as number, pairs[i + 1] as number)
    const kept: number[] = []
    let ends = false
    while (work.length > 0) {
      const stack = work.pop() as number
      const id = work.pop() as number
      const state = this.#state(id)
      if (state.bytes.length > 0) kept.push(stack * states + id)
      for (const next of state.free) visit(next, stack)
      for (const [start, next] of state.rules) visit(start, next === LAST ? stack : this.#push(next, stack))
      if (!state.ends) continue
      if (stack === EMPTY) ends = true
      else visit(this.#tops[stack] as number, this.#below[stack] as number)
    }
    const position = this.#position(kept, ends)
    this.#reached.set(key, position)
    return position
  }

  #position(found: number[], ends: boolean): number {
    found.sort((a, b) => a - b)
    const key = `${found.join()} ${ends}`
    const known = this.#ids.get(key)
    if (known !== undefined) return known
    const states = this.#states.length
    const id = this.#positions.length
    this.#positions.push({ pairs: found.flatMap((pair) => [pair % states, Math.floor(pair / states)]), ends })
    this.#ids.set(key, id)
    return id
  }

  #push(top: number, below: number): number {
    const key = below * this.#states.length + top
    const known = this.#stacks.get(key)
    if (known !== undefined) return known
    const stack = this.#tops.length
    if (stack > MAX_STACKS) throw new Refused('its rules are open in too many ways')
    this.#tops.push(top)
    this.#below.push(below)
    this.#stacks.set(key, stack)
    return stack
  }
}
