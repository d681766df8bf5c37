// Rules that begin with themselves: `a ::= a "x" | "y"` becomes `a ::= "y" ("x")*`. What does so through another rule is refused.
import { type Expression, parseGrammar } from './grammar-text.js'
import { Refused } from './unsupported.js'

/** The rules of a grammar by name, none of which begins with itself. Throws Refused. */
export function readGrammar(text: string): ReadonlyMap<string, Expression> {
  return new LeftRecursion(parseGrammar(text)).removed()
}

class LeftRecursion {
  readonly #rules: Map<string, Expression>
  readonly #nullable = new Set<string>()

  constructor(rules: ReadonlyMap<string, Expression>) {
    this.#rules = new Map([...rules].map(([name, expression]) => [name, direct(name, expression)]))
  }

  /** The same grammar, in which no rule begins with itself. Throws Refused. */
  removed(): ReadonlyMap<string, Expression> {
    for (let before = -1; before !== this.#nullable.size; ) {
      before = this.#nullable.size
      for (const [name, expression] of this.#rules) if (this.#isNullable(expression)) this.#nullable.add(name)
    }
    const first = new Map([...this.#rules].map(([name, expression]) => [name, [...this.#first(expression)]]))
    const done = new Set<string>()
    for (const name of this.#rules.keys()) checkCycle(name, first, done)
    return this.#rules
  }

  #isNullable(e: Expression): boolean {
    switch (e.kind) {
      case 'bytes':
        return e.bytes.length === 0
      case 'class':
        return false
      case 'rule':
        return this.#nullable.has(e.name)
      case 'sequence':
        return e.parts.every((part) => this.#isNullable(part))
      case 'choice':
        return e.parts.some((part) => this.#isNullable(part))
      default:
        return e.min === 0 || this.#isNullable(e.inner)
    }
  }

  /** Rules with which the expression may begin. */
  #first(e: Expression, found = new Set<string>()): Set<string> {
    if (e.kind === 'rule') found.add(e.name)
    if (e.kind === 'repeat') this.#first(e.inner, found)
    if (e.kind === 'choice') for (const part of e.parts) this.#first(part, found)
    if (e.kind === 'sequence')
      for (const part of e.parts) {
        this.#first(part, found)
        if (!this.#isNullable(part)) break
      }
    return found
  }
}

/** Iterative: chains of rules are as long as grammars. */
function checkCycle(root: string, first: ReadonlyMap<string, readonly string[]>, done: Set<string>): void {
  if (done.has(root)) return
  const path = new Set([root])
  const stack = [{ name: root, next: 0 }]
  for (let top = stack.at(-1); top; top = stack.at(-1)) {
    const name = first.get(top.name)?.[top.next++]
    if (name === undefined) {
      done.add(top.name)
      path.delete(top.name)
      stack.pop()
    } else if (path.has(name)) throw new Refused(`the rule "${name}" begins with itself, through other rules`)
    else if (!done.has(name)) {
      path.add(name)
      stack.push({ name, next: 0 })
    }
  }
}

function direct(name: string, expression: Expression): Expression {
  const parts = expression.kind === 'choice' ? expression.parts : [expression]
  const rests: Expression[] = []
  const others: Expression[] = []
  for (const part of parts) {
    const sequence = part.kind === 'sequence' ? part.parts : [part]
    const [head, ...rest] = sequence
    if (head?.kind === 'rule' && head.name === name) rests.push({ kind: 'sequence', parts: rest })
    else others.push(part)
  }
  if (rests.length === 0) return expression
  if (others.length === 0) throw new Refused(`the rule "${name}" begins with itself always`)
  const more = rests.filter((rest) => !(rest.kind === 'sequence' && rest.parts.length === 0))
  const tail: Expression = { kind: 'repeat', inner: { kind: 'choice', parts: more }, min: 0, max: Infinity }
  const head: Expression = others.length === 1 ? (others[0] as Expression) : { kind: 'choice', parts: others }
  return more.length === 0 ? head : { kind: 'sequence', parts: [head, tail] }
}
