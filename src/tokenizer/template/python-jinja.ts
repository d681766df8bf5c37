// Jinja as Python renders it: @huggingface/jinja 0.5.11 (exact pin), with what it lacks or does differently put right. The library
// offers no extension point, so its interpreter's own methods are overridden; test/tokenizer/template.test.ts compares with Jinja2.
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja'
import { capitalize, equal, formatPercent, pythonString, repr, STRING_METHODS, toFixed, type Value } from './python-values.js'
import { strftime } from './strftime.js'

interface Node {
  readonly type: string
  readonly [key: string]: unknown
}

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

const LIBRARY_FILTERS = [
  'safe',
  'tojson',
  'list',
  'first',
  'last',
  'length',
  'reverse',
  'sort',
  'join',
  'string',
  'unique',
  'upper',
  'lower',
  'title',
  'capitalize',
  'trim',
  'indent',
  'int',
  'float',
  'abs',
  'items',
  'dictsort',
  'keys',
  'values',
  'get',
  'bool',
  'default',
  'selectattr',
  'rejectattr',
  'map',
  'replace',
]
const LIBRARY_METHODS = [
  'upper',
  'lower',
  'startswith',
  'endswith',
  'split',
  'replace',
  'get',
  'items',
  'keys',
  'values',
  'dictsort',
  'join',
  'format',
  'cycle',
  'index',
]
const LIBRARY_GLOBALS = ['raise_exception', 'range', 'strftime_now', 'dict', 'namespace', 'caller']

export class PythonTemplate {
  readonly #program: Node

  /** Throws what is wrong with it, and what of it cannot be rendered here. */
  constructor(source: string) {
    const text = withoutRaw(source.replace(/\r\n?/g, '\n').replace(/\{%-?\s*(?:end)?generation\s*-?%\}\n?/g, ''))
    this.#program = parse(tokenize(text, { lstrip_blocks: true, trim_blocks: true })) as unknown as Node
    checkNode(this.#program, definedNames(this.#program), new Set([...new Environment().tests.keys(), ...Object.keys(EXTRA_TESTS)]))
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

const EXTRA_TESTS: Readonly<Record<string, (operand: Value, other?: Value) => boolean>> = {
  equalto: (a, b) => b !== undefined && equal(a, b),
  eq: (a, b) => b !== undefined && equal(a, b),
  ne: (a, b) => b !== undefined && !equal(a, b),
  in: (a, b) => Array.isArray(b?.value) && b.value.some((item: Value) => equal(a, item)),
  float: ({ type }) => type === 'FloatValue',
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

/** A value of the same class with other content: arrays of values, and numbers that must stay floats. */
function withValue(value: Value, content: unknown): Value {
  ;(value as { value: unknown }).value = content
  return value
}

function compare(a: string, b: string): number {
  const [x, y] = [[...a], [...b]]
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const difference = ((x[i] as string).codePointAt(0) ?? 0) - ((y[i] as string).codePointAt(0) ?? 0)
    if (difference !== 0) return difference
  }
  return x.length - y.length
}

function filterName(filter: Node): string {
  return String(filter.type === 'CallExpression' ? (filter.callee as Node).value : filter.value)
}

interface FilterCall {
  readonly operand: Value
  readonly args: readonly Value[]
  readonly named: ReadonlyMap<string, Value>
  make(value: unknown): Value
  filter(value: Value, name: string): Value
  test(name: string, value: Value, other?: Value): boolean
}

const truthy = ({ type, value }: Value) =>
  type === 'ArrayValue' || type === 'TupleValue'
    ? (value as Value[]).length > 0
    : type === 'ObjectValue'
      ? (value as Map<string, Value>).size > 0
      : Boolean(value)

/** Filters that the library lacks or does differently; undefined: as the library does. */
const FILTERS: Readonly<Record<string, (call: FilterCall) => Value | undefined>> = {
  string: ({ operand, make }) => make(pythonString(operand)),
  capitalize: ({ operand, make }) => make(capitalize(pythonString(operand))),
  title: ({ operand, make }) => make(pythonString(operand).replace(/[^-\s({[<]+/g, capitalize)),
  trim: ({ operand, args, make }) => make((STRING_METHODS.strip as (text: string, set?: unknown) => unknown)(pythonString(operand), args[0]?.value)),
  e: ({ operand, make }) => make(escapeHtml(pythonString(operand))),
  escape: ({ operand, make }) => make(escapeHtml(pythonString(operand))),
  format: ({ operand, args, make }) => make(formatPercent(String(operand.value), args)),
  length: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value].length) : undefined),
  count: ({ operand, filter }) => filter(operand, 'length'),
  list: ({ operand, make }) =>
    typeof operand.value === 'string' ? make([...operand.value]) : operand.value instanceof Map ? make([...operand.value.keys()]) : undefined,
  first: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value][0]) : undefined),
  last: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value].at(-1)) : undefined),
  reverse: ({ operand, make }) => (typeof operand.value === 'string' ? make([...operand.value].reverse().join('')) : undefined),
  wordcount: ({ operand, make }) => make(pythonString(operand).match(/\S+/g)?.length ?? 0),
  round: ({ operand, args, named, make }) => {
    const digits = Number((args[0] ?? named.get('precision'))?.value ?? 0)
    const method = (args[1] ?? named.get('method'))?.value ?? 'common'
    const value = Number(operand.value)
    const scale = 10 ** digits
    const rounded =
      method === 'ceil' ? Math.ceil(value * scale) / scale : method === 'floor' ? Math.floor(value * scale) / scale : Number(toFixed(value, digits))
    return withValue(make(0.5), rounded)
  },
  int: ({ operand, make }) => (operand.type === 'FloatValue' ? make(Math.trunc(operand.value as number)) : undefined),
  sum: ({ operand, make }) => make((operand.value as Value[]).reduce((sum, item) => sum + Number(item.value), 0)),
  min: ({ operand, make }) => extreme(operand, -1) ?? make(undefined),
  max: ({ operand, make }) => extreme(operand, 1) ?? make(undefined),
  d: ({ operand, args, named, make }) =>
    operand.type === 'UndefinedValue' || ((args[1] ?? named.get('boolean'))?.value === true && !truthy(operand)) ? (args[0] ?? make('')) : operand,
  join: ({ operand, args, named, make }) =>
    Array.isArray(operand.value) && !named.has('attribute')
      ? make((operand.value as Value[]).map(pythonString).join(String((args[0] ?? named.get('d') ?? named.get('separator'))?.value ?? '')))
      : undefined,
  map: ({ operand, args, filter, make }) => {
    const name = args[0]?.value
    if (typeof name !== 'string') return undefined
    return withValue(
      make([]),
      (operand.value as Value[]).map((item) => filter(item, name)),
    )
  },
  select: ({ operand, args, test, make }) => selected(operand, args, test, make, true),
  reject: ({ operand, args, test, make }) => selected(operand, args, test, make, false),
}

function selected(operand: Value, args: readonly Value[], test: FilterCall['test'], make: FilterCall['make'], keep: boolean): Value {
  const name = args[0]?.value
  const items = (operand.value as Value[]).filter((item) => (typeof name === 'string' ? test(name, item, args[1]) : truthy(item)) === keep)
  return withValue(make([]), items)
}

function extreme(operand: Value, sign: number): Value | undefined {
  const order = (a: Value, b: Value) => (typeof a.value === 'string' ? compare(a.value, String(b.value)) : Number(a.value) - Number(b.value))
  return (operand.value as Value[]).reduce<Value | undefined>((best, item) => (best && sign * order(item, best) <= 0 ? best : item), undefined)
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' })[c] as string)
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

function children(node: Node): Node[] {
  return Object.values(node)
    .flatMap((value) => (value instanceof Map ? [...value].flat() : Array.isArray(value) ? value : [value]))
    .filter((value): value is Node => typeof value === 'object' && value !== null && typeof (value as Node).type === 'string')
}

/** Every name that a template gives a meaning somewhere: macros, loop variables, parameters, set. */
function definedNames(program: Node): Set<string> {
  const names = new Set(LIBRARY_GLOBALS)
  const take = (node: Node | null | undefined): void => {
    if (node?.type === 'Identifier') names.add(String(node.value))
    else if (node) children(node).forEach(take)
  }
  const visit = (node: Node): void => {
    if (node.type === 'Set') take(node.assignee as Node)
    if (node.type === 'For') take(node.loopvar as Node)
    if (node.type === 'Macro') [node.name as Node, ...(node.args as Node[])].forEach(take)
    if (node.type === 'CallStatement') for (const argument of (node.callerArgs ?? []) as Node[]) take(argument)
    children(node).forEach(visit)
  }
  visit(program)
  return names
}

/** Throws for a filter, test, method or function that nothing here knows: when the model loads, not when a client asks. */
function checkNode(node: Node, names: ReadonlySet<string>, tests: ReadonlySet<string>): void {
  const refuse = (kind: string, name: string) => {
    throw new Error(`it uses the ${kind} ${name}, which the template engine does not have`)
  }
  if (node.type === 'FilterExpression' || node.type === 'FilterStatement') {
    const name = filterName(node.filter as Node)
    if (!LIBRARY_FILTERS.includes(name) && !Object.hasOwn(FILTERS, name)) refuse('filter', name)
  }
  if (node.type === 'TestExpression' && !tests.has(String((node.test as Node).value))) refuse('test', String((node.test as Node).value))
  if (node.type === 'CallExpression') {
    const callee = node.callee as Node
    if (callee.type === 'Identifier' && !names.has(String(callee.value)) && !isFilterCall.has(node)) refuse('function', String(callee.value))
    if (callee.type === 'MemberExpression' && callee.computed !== true) {
      const name = String((callee.property as Node).value)
      if (!LIBRARY_METHODS.includes(name) && !Object.hasOwn(STRING_METHODS, name)) refuse('method', name)
    }
  }
  if (node.type === 'FilterExpression' || node.type === 'FilterStatement') isFilterCall.add(node.filter as Node)
  for (const child of children(node)) checkNode(child, names, tests)
}

/** Filters with arguments look like calls. */
const isFilterCall = new WeakSet<Node>()
