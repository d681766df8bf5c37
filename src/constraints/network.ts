// Grammars as networks: a rule is a nondeterministic automaton over bytes, whose edges are ranges of bytes, other rules, or nothing.
import type { Expression } from './grammar-text.js'
import { readGrammar } from './left-recursion.js'
import { Refused } from './unsupported.js'
import { utf8Sequences } from './utf8-ranges.js'

const MAX_STATES = 200_000

export interface State {
  /** Inclusive ranges of bytes, and the state after them. */
  readonly bytes: (readonly [from: number, to: number, next: number])[]
  /** States that are reached by nothing. */
  readonly free: number[]
  /** Rules, by their first state, and the state after them. LAST: the rule ends after it as well. */
  readonly rules: (readonly [start: number, next: number])[]
  /** The rule may end here. */
  ends: boolean
}

/** Instead of a next state: nothing follows in the rule. So a rule that ends with itself needs no more memory with each turn. */
export const LAST = -1

export class Network {
  readonly states: State[] = []
  readonly #grammars = new Map<string, number>()

  add(): number {
    if (this.states.length >= MAX_STATES) throw new Refused(`it has more than ${MAX_STATES} states`)
    this.states.push({ bytes: [], free: [], rules: [], ends: false })
    return this.states.length - 1
  }

  at(state: number): State {
    return this.states[state] as State
  }

  /** Adds a grammar in EBNF; returns the first state of its root. Throws Refused. */
  addGrammar(text: string): number {
    const known = this.#grammars.get(text)
    if (known !== undefined) return known
    const rules = readGrammar(text)
    const starts = new Map([...rules.keys()].map((name) => [name, this.add()]))
    for (const [name, expression] of rules) this.#end(this.#build(expression, starts.get(name) as number, starts))
    const root = starts.get('root') as number
    this.#grammars.set(text, root)
    return root
  }

  /** A path of bytes; returns its last state. */
  addBytes(bytes: Uint8Array, from: number): number {
    let at = from
    for (const byte of bytes) {
      const next = this.add()
      this.at(at).bytes.push([byte, byte, next])
      at = next
    }
    return at
  }

  /** Call once, when all is added. */
  finish(): void {
    for (const state of this.states)
      for (const [i, [start, next]] of state.rules.entries()) if (next !== LAST && this.#isLast(next)) state.rules[i] = [start, LAST]
  }

  #isLast(state: number): boolean {
    let at = this.at(state)
    for (let steps = 0; steps < 100; steps++) {
      if (at.bytes.length > 0 || at.rules.length > 0) return false
      if (at.ends) return at.free.length === 0
      if (at.free.length !== 1) return false
      at = this.at(at.free[0] as number)
    }
    return false
  }

  #end(state: number): void {
    this.at(state).ends = true
  }

  /** Adds what the expression matches after `from`; returns the state after it. */
  #build(expression: Expression, from: number, starts: ReadonlyMap<string, number>): number {
    switch (expression.kind) {
      case 'bytes':
        return this.addBytes(expression.bytes, from)
      case 'class': {
        const end = this.add()
        for (const [low, high] of expression.ranges)
          for (const sequence of utf8Sequences(low, high)) {
            let at = from
            for (const [i, [a, b]] of sequence.entries()) {
              const next = i === sequence.length - 1 ? end : this.add()
              this.at(at).bytes.push([a, b, next])
              at = next
            }
          }
        return end
      }
      case 'rule': {
        const next = this.add()
        this.at(from).rules.push([starts.get(expression.name) as number, next])
        return next
      }
      case 'sequence':
        return expression.parts.reduce((at, part) => this.#build(part, at, starts), from)
      case 'choice': {
        const end = this.add()
        for (const part of expression.parts) this.at(this.#build(part, from, starts)).free.push(end)
        return end
      }
      default:
        return this.#repeat(expression.inner, expression.min, expression.max, from, starts)
    }
  }

  #repeat(inner: Expression, min: number, max: number, from: number, starts: ReadonlyMap<string, number>): number {
    const once = this.#repeatable(inner, Math.max(min, max === Infinity ? 0 : max), starts)
    let at = from
    for (let i = 0; i < min; i++) at = once(at)
    if (max === Infinity) {
      const loop = this.add()
      this.at(at).free.push(loop)
      this.at(once(loop)).free.push(loop)
      // A state of its own: what follows must not be reached by alternatives that share `loop`.
      const end = this.add()
      this.at(loop).free.push(end)
      return end
    }
    const end = this.add()
    for (let i = min; i < max; i++) {
      this.at(at).free.push(end)
      at = once(at)
    }
    this.at(at).free.push(end)
    return end
  }

  /** What is written more than twice becomes a rule of its own. */
  #repeatable(inner: Expression, times: number, starts: ReadonlyMap<string, number>): (from: number) => number {
    if (times <= 2 || inner.kind === 'rule') return (from) => this.#build(inner, from, starts)
    const start = this.add()
    this.#end(this.#build(inner, start, starts))
    return (from) => {
      const next = this.add()
      this.at(from).rules.push([start, next])
      return next
    }
  }
}
