// A parser of the part of WGSL that the project's kernels use: source to a syntax tree. Types are names with arguments; nothing is checked.

export interface TypeName {
  readonly name: string
  /** Types, or sizes. */
  readonly args: readonly (TypeName | number)[]
}

export type Expression =
  | { readonly kind: 'number'; readonly value: number; readonly type: 'u32' | 'i32' | 'f32' | 'int' }
  | { readonly kind: 'bool'; readonly value: boolean }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'member'; readonly of: Expression; readonly name: string }
  | { readonly kind: 'index'; readonly of: Expression; readonly index: Expression }
  | { readonly kind: 'unary'; readonly operator: string; readonly of: Expression }
  | { readonly kind: 'binary'; readonly operator: string; readonly left: Expression; readonly right: Expression }
  | { readonly kind: 'call'; readonly callee: TypeName; readonly args: readonly Expression[] }

export type Statement =
  | { readonly kind: 'block'; readonly body: readonly Statement[] }
  | { readonly kind: 'let' | 'var'; readonly name: string; readonly type: TypeName | undefined; readonly value: Expression | undefined }
  | { readonly kind: 'assign'; readonly to: Expression; readonly operator: string; readonly value: Expression }
  | { readonly kind: 'call'; readonly call: Expression }
  | { readonly kind: 'if'; readonly condition: Expression; readonly then: Statement; readonly otherwise: Statement | undefined }
  | {
      readonly kind: 'for'
      readonly first: Statement | undefined
      readonly condition: Expression | undefined
      readonly next: Statement | undefined
      readonly body: Statement
    }
  | { readonly kind: 'return'; readonly value: Expression | undefined }
  | { readonly kind: 'break' | 'continue' }

export interface Attribute {
  readonly name: string
  /** Of numbers, names and generated expressions, as they are written. */
  readonly value: string
}

export interface Parameter {
  readonly name: string
  readonly type: TypeName
  readonly builtin: string | undefined
}

export interface FunctionDeclaration {
  readonly name: string
  readonly parameters: readonly Parameter[]
  readonly result: TypeName | undefined
  readonly body: Statement
  readonly attributes: readonly Attribute[]
}

export interface ModuleVariable {
  readonly name: string
  readonly space: 'storage' | 'uniform' | 'workgroup' | 'const'
  readonly type: TypeName | undefined
  readonly value: Expression | undefined
  readonly binding: number | undefined
}

export interface Module {
  readonly aliases: ReadonlyMap<string, TypeName>
  readonly structs: ReadonlyMap<string, readonly { readonly name: string; readonly type: TypeName }[]>
  readonly variables: readonly ModuleVariable[]
  readonly functions: readonly FunctionDeclaration[]
}

const TOKEN =
  /\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/|(0x[0-9a-fA-F]+[iu]?|\d+\.\d*(?:[eE][+-]?\d+)?[fh]?|\.\d+(?:[eE][+-]?\d+)?[fh]?|\d+(?:[eE][+-]?\d+)?[iufh]?|[A-Za-z_]\w*|->|\+\+|--|<<=|>>=|[-+*/%&|^]=|==|!=|<=|>=|&&|\|\||<<|>>|[-+*/%&|^!~<>=.,;:(){}[\]@])/gy

/** From the operators that bind least. */
const PRECEDENCE = [['||'], ['&&'], ['|'], ['^'], ['&'], ['==', '!='], ['<', '>', '<=', '>='], ['<<', '>>'], ['+', '-'], ['*', '/', '%']]
/** Names that `<` follows as a bracket. */
const GENERIC = /^(vec[234]|array|ptr|bitcast|subgroup_matrix_\w+|subgroupMatrix(Load|Store))$/

export function parse(source: string): Module {
  return new Parser(source).module()
}

class Parser {
  readonly #tokens: string[] = []
  #at = 0

  constructor(source: string) {
    TOKEN.lastIndex = 0
    while (TOKEN.lastIndex < source.length) {
      const from = TOKEN.lastIndex
      const found = TOKEN.exec(source)
      if (!found) throw new SyntaxError(`no WGSL token at: ${source.slice(from, from + 40)}`)
      if (found[1] !== undefined) this.#tokens.push(found[1])
    }
  }

  get #next(): string {
    return this.#tokens[this.#at] ?? ''
  }

  #take(): string {
    this.#at++
    return this.#tokens[this.#at - 1] ?? ''
  }

  #has(token: string): boolean {
    if (this.#next !== token) return false
    this.#at++
    return true
  }

  #expect(token: string): void {
    // Two brackets that close at once were read as a shift.
    if (token === '>' && this.#next === '>>') {
      this.#tokens[this.#at] = '>'
      return
    }
    if (!this.#has(token)) throw new SyntaxError(`expected ${token} at: ${this.#tokens.slice(this.#at, this.#at + 12).join(' ')}`)
  }

  #list<T>(close: string, item: () => T): T[] {
    const items: T[] = []
    while (!this.#has(close)) {
      items.push(item())
      if (!this.#has(',')) {
        this.#expect(close)
        break
      }
    }
    return items
  }

  module(): Module {
    const aliases = new Map<string, TypeName>()
    const structs = new Map<string, { name: string; type: TypeName }[]>()
    const variables: ModuleVariable[] = []
    const functions: FunctionDeclaration[] = []
    while (this.#next !== '') {
      if (this.#has(';')) continue
      const attributes = this.#attributes()
      const keyword = this.#take()
      if (keyword === 'enable') while (!this.#has(';')) this.#take()
      else if (keyword === 'alias') {
        const name = this.#take()
        this.#expect('=')
        aliases.set(name, this.#type())
      } else if (keyword === 'struct') {
        const name = this.#take()
        this.#expect('{')
        structs.set(
          name,
          this.#list('}', () => this.#member()),
        )
      } else if (keyword === 'fn') functions.push(this.#function(attributes))
      else if (keyword === 'var' || keyword === 'const') variables.push(this.#variable(keyword, attributes))
      else throw new SyntaxError(`no WGSL declaration: ${keyword}`)
    }
    return { aliases, structs, variables, functions }
  }

  #attributes(): Attribute[] {
    const attributes: Attribute[] = []
    while (this.#has('@')) {
      const name = this.#take()
      let value = ''
      if (this.#has('(')) while (!this.#has(')')) value += this.#take()
      attributes.push({ name, value })
    }
    return attributes
  }

  #member(): { name: string; type: TypeName } {
    const name = this.#take()
    this.#expect(':')
    return { name, type: this.#type() }
  }

  #variable(keyword: 'var' | 'const', attributes: readonly Attribute[]): ModuleVariable {
    const spaces = this.#has('<') ? this.#list('>', () => this.#take()) : []
    const name = this.#take()
    const type = this.#has(':') ? this.#type() : undefined
    const value = this.#has('=') ? this.#expression() : undefined
    const binding = attributes.find((a) => a.name === 'binding')
    const space = keyword === 'const' ? 'const' : (spaces[0] as ModuleVariable['space'])
    return { name, space, type, value, binding: binding && Number.parseInt(binding.value, 10) }
  }

  #function(attributes: readonly Attribute[]): FunctionDeclaration {
    const name = this.#take()
    this.#expect('(')
    const parameters = this.#list(')', () => {
      const builtin = this.#attributes().find((a) => a.name === 'builtin')?.value
      return { ...this.#member(), builtin }
    })
    const result = this.#has('->') ? this.#type() : undefined
    return { name, parameters, result, body: this.#block(), attributes }
  }

  #type(): TypeName {
    const name = this.#take()
    if (!this.#has('<')) return { name, args: [] }
    return { name, args: this.#list('>', () => (/^\d/.test(this.#next) ? Number.parseInt(this.#take(), 10) : this.#type())) }
  }

  #block(): Statement {
    this.#expect('{')
    const body: Statement[] = []
    while (!this.#has('}')) if (!this.#has(';')) body.push(this.#statement())
    return { kind: 'block', body }
  }

  #statement(): Statement {
    if (this.#next === '{') return this.#block()
    if (this.#has('if')) {
      const condition = this.#expression()
      const then = this.#block()
      if (!this.#has('else')) return { kind: 'if', condition, then, otherwise: undefined }
      return { kind: 'if', condition, then, otherwise: this.#next === 'if' ? this.#statement() : this.#block() }
    }
    if (this.#has('loop')) return { kind: 'for', first: undefined, condition: undefined, next: undefined, body: this.#block() }
    if (this.#has('while')) return { kind: 'for', first: undefined, condition: this.#expression(), next: undefined, body: this.#block() }
    if (this.#has('for')) {
      this.#expect('(')
      const first = this.#has(';') ? undefined : this.#simple(';')
      const condition = this.#has(';') ? undefined : this.#expression()
      if (condition) this.#expect(';')
      const next = this.#has(')') ? undefined : this.#simple(')')
      return { kind: 'for', first, condition, next, body: this.#block() }
    }
    if (this.#has('return')) {
      const value = this.#next === ';' ? undefined : this.#expression()
      this.#expect(';')
      return { kind: 'return', value }
    }
    for (const kind of ['break', 'continue'] as const) {
      if (!this.#has(kind)) continue
      this.#expect(';')
      return { kind }
    }
    return this.#simple(';')
  }

  /** A declaration, an assignment or a call. */
  #simple(end: string): Statement {
    const statement = this.#unended()
    this.#expect(end)
    return statement
  }

  #unended(): Statement {
    for (const kind of ['let', 'var', 'const'] as const) {
      if (!this.#has(kind)) continue
      const name = this.#take()
      const type = this.#has(':') ? this.#type() : undefined
      const value = this.#has('=') ? this.#expression() : undefined
      return { kind: kind === 'var' ? 'var' : 'let', name, type, value }
    }
    const to = this.#unary()
    const operator = this.#next
    const one: Expression = { kind: 'number', value: 1, type: 'int' }
    if (operator === '++' || operator === '--') {
      this.#take()
      return { kind: 'assign', to, operator: operator.charAt(0), value: one }
    }
    if (/^([-+*/%&|^]|<<|>>)?=$/.test(operator)) {
      this.#take()
      return { kind: 'assign', to, operator: operator.slice(0, -1), value: this.#expression() }
    }
    if (to.kind !== 'call') throw new SyntaxError(`no WGSL statement at: ${this.#tokens.slice(this.#at, this.#at + 8).join(' ')}`)
    return { kind: 'call', call: to }
  }

  #expression(level = 0): Expression {
    const operators = PRECEDENCE[level]
    if (!operators) return this.#unary()
    let left = this.#expression(level + 1)
    while (operators.includes(this.#next)) {
      const operator = this.#take()
      left = { kind: 'binary', operator, left, right: this.#expression(level + 1) }
    }
    return left
  }

  #unary(): Expression {
    if (['-', '!', '~', '&'].includes(this.#next)) return { kind: 'unary', operator: this.#take(), of: this.#unary() }
    let result = this.#primary()
    for (;;) {
      if (this.#has('.')) result = { kind: 'member', of: result, name: this.#take() }
      else if (this.#has('[')) {
        result = { kind: 'index', of: result, index: this.#expression() }
        this.#expect(']')
      } else return result
    }
  }

  #primary(): Expression {
    if (this.#has('(')) {
      const inner = this.#expression()
      this.#expect(')')
      return inner
    }
    const token = this.#next
    if (/^[.\d]/.test(token)) {
      this.#take()
      return numberOf(token)
    }
    if (token === 'true' || token === 'false') return { kind: 'bool', value: this.#take() === 'true' }
    const callee = GENERIC.test(token) ? this.#type() : { name: this.#take(), args: [] }
    if (this.#has('(')) return { kind: 'call', callee, args: this.#list(')', () => this.#expression()) }
    return { kind: 'name', name: callee.name }
  }
}

function numberOf(token: string): Expression {
  const value = Number(token.startsWith('0x') ? token.replace(/[iu]$/, '') : token.replace(/[iufh]$/, ''))
  if (token.endsWith('u')) return { kind: 'number', value, type: 'u32' }
  if (/i$/.test(token)) return { kind: 'number', value, type: 'i32' }
  if (!token.startsWith('0x') && /[.efh]/i.test(token)) return { kind: 'number', value: Math.fround(value), type: 'f32' }
  return { kind: 'number', value, type: 'int' }
}
