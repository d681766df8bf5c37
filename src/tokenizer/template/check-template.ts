// What a template may use: found out when the model loads, not when a client asks.
import { EXTRA_TESTS, FILTERS } from './python-filters.js'
import { STRING_METHODS } from './python-values.js'

export interface Node {
  readonly type: string
  readonly [key: string]: unknown
}

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

export function filterName(filter: Node): string {
  return String(filter.type === 'CallExpression' ? (filter.callee as Node).value : filter.value)
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

/** Throws for a filter, test, method or function that nothing here knows. tests: names of those that the engine brings. */
export function checkTemplate(program: Node, tests: Iterable<string>): void {
  checkNode(program, definedNames(program), new Set([...tests, ...Object.keys(EXTRA_TESTS)]))
}

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
