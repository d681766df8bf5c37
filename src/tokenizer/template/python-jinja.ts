// Jinja as Python renders it: @huggingface/jinja 0.5.11 (exact pin), with what it lacks or does differently put right. The library
// offers no extension point, so its interpreter's own methods are overridden; test/tokenizer/template.test.ts compares with Jinja2.
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja'
import { checkTemplate, filterName, type Node } from './check-template.js'
import { compare, EXTRA_TESTS, FILTERS, withValue } from './python-filters.js'
import { equal, formatPercent, pythonString, repr, STRING_METHODS, type Value } from './python-values.js'
import { strftime } from './strftime.js'

/** What the interpreter has beside its public methods. */
interface Machine {
  evaluate(node: Node | undefined, env: Environment): Value
  evaluateArguments(args: readonly Node[], env: Environment): [Value[], Map<string, Value>]
  evaluateBinaryExpression(node: Node, env: Environment): Value
  evaluateMemberExpression(node: Node, env: Environment): Value
  evaluateBlock(nodes: readonly Node[], env: Environment): Value
  applyFilter(operand: Value, filter: Node, env: Environment): Value
  run(program: unknown): Value
}

const Base = Interpreter as unknown as new (env: Environment) => Machine

/** Statements print nothing themselves; what they yield is text already. */
const STATEMENTS = new Set(['Set', 'If', 'For', 'Macro', 'Break', 'Continue', 'Comment', 'CallStatement', 'FilterStatement'])

export class PythonTemplate {
  readonly #program: Node

  /** Throws what is wrong with it, and what of it cannot be rendered here. */
  constructor(source: string) {
    const text = withoutRaw(source.replace(/\r\n?/g, '\n').replace(/\{%-?\s*(?:end)?generation\s*-?%\}\n?/g, ''))
    this.#program = parse(tokenize(text, { lstrip_blocks: true, trim_blocks: true })) as unknown as Node
    checkTemplate(this.#program, new Environment().tests.keys())
  }

  render(context: Readonly<Record<string, unknown>>): string {
    const env = new Environment()
    env.tests = new Map([...env.tests, ...(Object.entries(EXTRA_TESTS) as [string, never][])])
    const globals = {
      true: true,
      false: false,
      none: null,
      True: true,
      False: false,
      None: null,
      raise_exception: (message: string) => {
        throw new Error(message)
      },
      range: (...args: number[]) => range(args),
      strftime_now: (format: string) => strftime(new Date(), format),
    }
    for (const [name, value] of Object.entries({ ...globals, ...context })) env.set(name, value)
    return String(new PythonInterpreter(env).run(this.#program).value)
  }
}

function range(args: readonly number[]): number[] {
  const [from, to, step] = args.length === 1 ? [0, args[0] as number, 1] : [args[0] as number, args[1] as number, args[2] ?? 1]
  if (step === 0) throw new Error('range() arg 3 must not be zero')
  return Array.from({ length: Math.max(0, Math.ceil((to - from) / step)) }, (_, i) => from + i * step)
}

class PythonInterpreter extends Base {
  constructor(env: Environment) {
    super(env)
    // dict(a=1): its keyword arguments, which come as the last argument.
    withValue(env.set('dict', () => null) as unknown as Value, (args: Value[]) =>
      withValue(this.#make({}), new Map(args.at(-1)?.type === 'KeywordArgumentsValue' ? (args.at(-1)?.value as Map<string, Value>) : [])),
    )
  }

  #make(value: unknown): Value {
    return new Environment().set('value', value) as unknown as Value
  }

  /** A value that is computed already, as a node. */
  #done(value: Value): Node {
    return { type: 'Computed', value }
  }

  override evaluate(node: Node | undefined, env: Environment): Value {
    return node?.type === 'Computed' ? (node.value as Value) : super.evaluate(node, env)
  }

  override evaluateBlock(nodes: readonly Node[], env: Environment): Value {
    let text = ''
    for (const node of nodes) {
      const value = this.evaluate(node, env)
      if (!STATEMENTS.has(node.type)) text += pythonString(value)
      else if (value.type === 'StringValue') text += value.value as string
    }
    return this.#make(text)
  }

  override evaluateBinaryExpression(node: Node, env: Environment): Value {
    const operator = (node.operator as { value: string }).value
    if (operator === 'and' || operator === 'or') return super.evaluateBinaryExpression(node, env)
    const left = this.evaluate(node.left as Node, env)
    const right = this.evaluate(node.right as Node, env)
    const result = this.#python(operator, left, right)
    return result ?? super.evaluateBinaryExpression({ ...node, left: this.#done(left), right: this.#done(right) }, env)
  }

  #python(operator: string, left: Value, right: Value): Value | undefined {
    const [a, b] = [left.value, right.value]
    switch (operator) {
      case '==':
        return this.#make(equal(left, right))
      case '!=':
        return this.#make(!equal(left, right))
      case '~':
        return this.#make(pythonString(left) + pythonString(right))
      case '*': {
        const [sequence, times] = typeof a === 'number' ? [right, a] : [left, b]
        if (typeof times !== 'number') return undefined
        if (typeof sequence.value === 'string') return this.#make(sequence.value.repeat(Math.max(0, times)))
        if (!Array.isArray(sequence.value)) return undefined
        return withValue(this.#make([]), Array.from({ length: Math.max(0, times) }, () => sequence.value as Value[]).flat())
      }
      case '%':
        if (typeof a === 'string') return this.#make(formatPercent(a, right.type === 'TupleValue' ? (b as Value[]) : [right]))
        if (left.type === 'IntegerValue' && right.type === 'IntegerValue')
          return this.#make((a as number) - Math.floor((a as number) / (b as number)) * (b as number))
        return undefined
      case '+':
        if (typeof a === 'string' && typeof b !== 'string') throw new Error(`cannot add ${repr(right)} to a string`)
        if (typeof b === 'string' && typeof a !== 'string') throw new Error(`cannot add a string to ${repr(left)}`)
        return undefined
      case 'in':
      case 'not in': {
        if (!Array.isArray(b)) return undefined
        const found = (b as Value[]).some((item) => equal(left, item))
        return this.#make(operator === 'in' ? found : !found)
      }
      case '<':
      case '>':
      case '<=':
      case '>=': {
        if (typeof a !== 'string' || typeof b !== 'string') return undefined
        const order = compare(a, b)
        return this.#make(operator === '<' ? order < 0 : operator === '>' ? order > 0 : operator === '<=' ? order <= 0 : order >= 0)
      }
      default:
        return undefined
    }
  }

  override evaluateMemberExpression(node: Node, env: Environment): Value {
    const object = this.evaluate(node.object as Node, env)
    const isIndex = node.computed === true && (node.property as Node).type !== 'SliceExpression'
    const computed = isIndex ? this.evaluate(node.property as Node, env) : undefined
    if (typeof object.value === 'string') {
      // Python counts code points.
      if (typeof computed?.value === 'number') return this.#make([...object.value].at(computed.value))
      const name = node.computed === true ? undefined : ((node.property as Node).value as string)
      if (name === 'join' || name === 'format') return this.#textMethod(object.value, name)
      const method = name !== undefined && Object.hasOwn(STRING_METHODS, name) ? STRING_METHODS[name] : undefined
      const text = object.value
      if (method) return this.#make((...args: unknown[]) => method(text, ...args))
    }
    if (node.computed !== true && object.type === 'ObjectValue' && (node.property as Node).value === 'cycle') {
      const index = (object.value as Map<string, Value>).get('index0')?.value
      if (typeof index === 'number') return this.#method((args) => args[index % args.length] ?? this.#make(undefined))
    }
    if (Array.isArray(object.value) && node.computed !== true && ['index', 'count'].includes((node.property as Node).value as string)) {
      const items = object.value as Value[]
      if ((node.property as Node).value === 'count') return this.#method(([item]) => this.#make(items.filter((x) => item && equal(x, item)).length))
      return this.#method(([item]) => this.#make(items.findIndex((x) => item && equal(x, item))))
    }
    return super.evaluateMemberExpression({ ...node, object: this.#done(object) }, env)
  }

  /** A function over values of the interpreter. */
  #method(run: (args: Value[]) => Value): Value {
    return withValue(
      this.#make(() => null),
      run,
    )
  }

  #textMethod(text: string, name: 'join' | 'format'): Value {
    if (name === 'join') return this.#method(([list]) => this.#make(((list?.value ?? []) as Value[]).map((item) => pythonString(item)).join(text)))
    return this.#method((args) => {
      const named = args.at(-1)?.type === 'KeywordArgumentsValue' ? (args.at(-1)?.value as Map<string, Value>) : undefined
      let next = 0
      const filled = text.replace(/\{\{|\}\}|\{(\w*)(?::([^}]*))?\}/g, (whole, field?: string, spec?: string) => {
        if (whole === '{{' || whole === '}}') return whole[0] as string
        const value = field === '' || field === undefined ? args[next++] : /^\d+$/.test(field) ? args[Number(field)] : named?.get(field)
        if (value === undefined) throw new Error(`no value for ${whole}`)
        if (!spec) return pythonString(value)
        const parts = /^(0?)(\d*)(?:\.(\d+))?([sdfeg]?)$/.exec(spec)
        if (!parts) throw new Error(`the format ${JSON.stringify(spec)} is not supported`)
        return formatPercent(`%${parts[1]}${parts[2]}${parts[3] === undefined ? '' : `.${parts[3]}`}${parts[4] || 's'}`, [value])
      })
      return this.#make(filled)
    })
  }

  override applyFilter(operand: Value, filter: Node, env: Environment): Value {
    const name = filterName(filter)
    const run = Object.hasOwn(FILTERS, name) ? FILTERS[name] : undefined
    if (run) {
      const [args, named] = filter.type === 'CallExpression' ? this.evaluateArguments(filter.args as Node[], env) : [[], new Map<string, Value>()]
      const result = run({
        operand,
        args,
        named,
        make: (value) => this.#make(value),
        filter: (value, by) => this.applyFilter(value, { type: 'Identifier', value: by }, env),
        test: (by, value, other) => testOf(env, by)(value, other),
      })
      if (result !== undefined) return result
    }
    return super.applyFilter(operand, filter, env)
  }
}

function testOf(env: Environment, name: string): (value: Value, other?: Value) => boolean {
  const test = Object.hasOwn(EXTRA_TESTS, name) ? EXTRA_TESTS[name] : (env.tests.get(name) as ((value: Value, other?: Value) => boolean) | undefined)
  if (!test) throw new Error(`the test ${name} is not supported`)
  return test
}

/** Raw blocks as an expression of their text; trim_blocks drops the line end after a tag. */
function withoutRaw(source: string): string {
  return source.replace(
    /\{%([-+]?)\s*raw\s*([-+]?)%\}([\s\S]*?)\{%([-+]?)\s*endraw\s*([-+]?)%\}(\n?)/g,
    (_, before: string, open: string, text: string, close: string, after: string, end: string) => {
      const left = open === '-' ? text.trimStart() : text
      const body = JSON.stringify(close === '-' ? left.trimEnd() : left)
      return `{{${before === '-' ? '-' : ''} ${body} ${after === '-' ? '-' : ''}}}${after === '-' ? end : ''}`
    },
  )
}
