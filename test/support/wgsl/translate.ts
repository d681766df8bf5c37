// WGSL kernels as JavaScript: each function of the module becomes one of JavaScript, the entry point a generator that yields wherever
// invocations wait for each other. Types are inferred as far as arithmetic and memory need them.
import type { Expression, FunctionDeclaration, Module, Statement, TypeName } from './parser.js'
import { FUNCTIONS, OPERATORS } from './runtime.js'
import { BOOL, F32, I32, type Scalar, scalar, strideOf, type Type, Types, U32, VOID, vector } from './types.js'

/** JavaScript of an expression. */
interface Code {
  readonly js: string
  readonly type: Type
  /** Where it is, for what can be written. */
  readonly place?: { readonly memory: string; readonly address: string } | 'private'
}

const LETTERS = ['xyzw', 'rgba'] as const
const SUBGROUP_OPERATIONS = ['subgroupShuffleXor', 'subgroupShuffle', 'subgroupAdd', 'subgroupMax', 'subgroupMin', 'subgroupBroadcast']

export class Translator {
  readonly #module: Module
  readonly types: Types
  readonly #globals = new Map<string, Code>()
  readonly #functions: ReadonlyMap<string, FunctionDeclaration>
  #scopes: Map<string, Code>[] = []
  #names = 0
  #isEntry = false

  constructor(module: Module) {
    this.#module = module
    this.types = new Types(module)
    this.#functions = new Map(module.functions.map((f) => [f.name, f]))
    for (const { name, space, type } of module.variables) {
      if (space === 'const' || !type) continue
      this.#globals.set(name, { js: '', type: this.types.resolve(type), place: { memory: `m.${name}`, address: '0' } })
    }
  }

  /** The body of a function of (m: memories by name, o: operators, f: functions, h: helpers) that returns the entry point. */
  program(entry: FunctionDeclaration): string {
    const constants = this.#module.variables.flatMap(({ name, space, value }) => {
      if (space !== 'const' || !value) return []
      const code = this.#expression(value)
      this.#globals.set(name, { js: `c_${name}`, type: code.type })
      return [`const c_${name} = ${code.js};`]
    })
    const others = [...this.#functions.values()].filter((f) => f !== entry).map((f) => this.#function(f, false))
    return `${constants.join('\n')}\n${others.join('\n')}\nreturn ${this.#function(entry, true)}`
  }

  #function({ name, parameters, body }: FunctionDeclaration, isEntry: boolean): string {
    this.#isEntry = isEntry
    this.#scopes = [new Map()]
    const names = parameters.map((p) => this.#declare(p.name, this.types.resolve(p.type)))
    const js = this.#statement(body)
    return isEntry ? `function* (${names.join(', ')}) ${js}` : `function f_${name}(${names.join(', ')}) ${js}`
  }

  #declare(name: string, type: Type): string {
    const js = `v${this.#names++}_${name}`
    this.#scopes.at(-1)?.set(name, { js, type, place: 'private' })
    return js
  }

  #find(name: string): Code {
    for (const scope of this.#scopes.toReversed()) {
      const found = scope.get(name)
      if (found) return found
    }
    const found = this.#globals.get(name)
    if (!found) throw new SyntaxError(`no WGSL name ${name}`)
    return found
  }

  #statement(s: Statement): string {
    if (s.kind === 'block') {
      this.#scopes.push(new Map())
      const js = s.body.map((inner) => this.#statement(inner)).join('\n')
      this.#scopes.pop()
      return `{ ${js} }`
    }
    if (s.kind === 'let' || s.kind === 'var') {
      const type = s.type && this.types.resolve(s.type)
      const value = s.value ? this.#read(this.#expression(s.value), type) : { js: this.#zero(type ?? VOID), type: type ?? VOID }
      const js = value.js
      return `let ${this.#declare(s.name, value.type)} = ${s.value && isComposite(value.type) ? copied(js, value.type) : js};`
    }
    if (s.kind === 'assign') {
      const to = this.#expression(s.to)
      const value =
        s.operator === '' ? this.#read(this.#expression(s.value), to.type) : this.#binary(s.operator, this.#read(to), this.#expression(s.value))
      return this.#store(to, value)
    }
    if (s.kind === 'call') return `${this.#read(this.#expression(s.call)).js};`
    if (s.kind === 'if') {
      const otherwise = s.otherwise ? ` else ${this.#statement(s.otherwise)}` : ''
      return `if (${this.#read(this.#expression(s.condition)).js}) ${this.#statement(s.then)}${otherwise}`
    }
    if (s.kind === 'for') {
      this.#scopes.push(new Map())
      const first = s.first ? this.#statement(s.first) : ''
      const condition = s.condition ? this.#read(this.#expression(s.condition)).js : 'true'
      const next = s.next ? this.#statement(s.next).replace(/;$/, '') : ''
      const js = `{ ${first} for (; ${condition}; ${next}) ${this.#statement(s.body)} }`
      this.#scopes.pop()
      return js
    }
    if (s.kind === 'return') return s.value ? `return ${this.#read(this.#expression(s.value)).js};` : 'return;'
    return `${s.kind};`
  }

  #store(to: Code, value: Code): string {
    if (to.place === 'private') return `${to.js} = ${isComposite(value.type) ? copied(value.js, value.type) : value.js};`
    if (!to.place) throw new SyntaxError(`this is no place to write to: ${to.js}`)
    const { memory, address } = to.place
    if (to.type.kind === 'scalar') return `${memory}.${to.type.scalar}[(${address}) / 4] = ${value.js};`
    if (to.type.kind === 'vector') return `${memory}.${to.type.scalar}.set(${value.js}, (${address}) / 4);`
    throw new SyntaxError(`a WGSL ${to.type.kind} is not written as a whole`)
  }

  /** The value, loaded if it is in memory, and an integer literal in the type that is wanted. */
  #read(code: Code, wanted?: Type): Code {
    if (code.type.kind === 'int') return { js: code.js, type: wanted && wanted.kind !== 'int' ? scalar(scalarOf(wanted)) : I32 }
    if (!code.place || code.place === 'private') return code
    const { memory, address } = code.place
    const load = (type: Type, at: string): string => {
      if (type.kind === 'scalar') return `${memory}.${type.scalar}[(${at}) / 4]`
      if (type.kind === 'vector') return `Array.from(${memory}.${type.scalar}.subarray((${at}) / 4, (${at}) / 4 + ${type.width}))`
      if (type.kind === 'struct')
        return `((a) => ({ ${type.members.map((member) => `${member.name}: ${load(member.type, `a + ${member.offset}`)}`).join(', ')} }))(${at})`
      throw new SyntaxError(`a WGSL ${type.kind} is not read as a whole`)
    }
    return { js: load(code.type, address), type: code.type }
  }

  #expression(e: Expression): Code {
    if (e.kind === 'number') return { js: String(e.value), type: e.type === 'int' ? { kind: 'int' } : scalar(e.type) }
    if (e.kind === 'bool') return { js: String(e.value), type: BOOL }
    if (e.kind === 'name') return this.#find(e.name)
    if (e.kind === 'member') return this.#member(this.#expression(e.of), e.name)
    if (e.kind === 'index') return this.#index(this.#expression(e.of), this.#read(this.#expression(e.index)))
    if (e.kind === 'unary') return this.#unary(e.operator, this.#expression(e.of))
    if (e.kind === 'binary') return this.#binary(e.operator, this.#expression(e.left), this.#expression(e.right))
    return this.#call(e.callee, e.args)
  }

  #member(of: Code, name: string): Code {
    if (of.type.kind === 'struct') {
      const member = of.type.members.find((m) => m.name === name)
      if (!member) throw new SyntaxError(`no member ${name} in ${of.type.name}`)
      if (of.place && of.place !== 'private')
        return { js: '', type: member.type, place: { memory: of.place.memory, address: `${of.place.address} + ${member.offset}` } }
      return { js: `${of.js}.${name}`, type: member.type, ...(of.place && { place: of.place }) }
    }
    if (of.type.kind !== 'vector') throw new SyntaxError(`.${name} of a WGSL ${of.type.kind}`)
    const letters = LETTERS.find((l) => l.includes(name.charAt(0))) ?? ''
    const elements = [...name].map((c) => letters.indexOf(c))
    if (elements.length === 1) return this.#element(of, String(elements[0]))
    const whole = this.#read(of)
    return { js: `((w) => [${elements.map((i) => `w[${i}]`).join(', ')}])(${whole.js})`, type: vector(of.type.scalar, elements.length) }
  }

  #element(of: Code, index: string): Code {
    const type = scalar(scalarOf(of.type))
    if (!of.place || of.place === 'private') return { js: `${of.js}[${index}]`, type, ...(of.place && { place: of.place }) }
    return { js: '', type, place: { memory: of.place.memory, address: `${of.place.address} + 4 * ${index}` } }
  }

  #index(of: Code, index: Code): Code {
    const { type } = of
    const where = of.place && of.place !== 'private' ? `${of.place.memory.slice(2)}` : 'a value'
    if (type.kind === 'vector') return this.#element(of, `h.at(${index.js}, ${type.width}, 'a vector of ${where}')`)
    if (type.kind !== 'array') throw new SyntaxError(`an index of a WGSL ${type.kind}`)
    if (!of.place || of.place === 'private')
      return { js: `${of.js}[h.at(${index.js}, ${type.count}, 'an array')]`, type: type.of, ...(of.place && { place: of.place }) }
    const { memory, address } = of.place
    const stride = strideOf(type)
    const count = type.count ?? `Math.floor(${memory}.bytes / ${stride})`
    return { js: '', type: type.of, place: { memory, address: `${address} + ${stride} * h.at(${index.js}, ${count}, '${where}')` } }
  }

  #unary(operator: string, of: Code): Code {
    if (operator === '&') return of
    const value = this.#read(of, of.type)
    if (of.type.kind === 'int') return { js: `(${operator}${of.js})`, type: of.type }
    if (operator === '!') return { js: `!${value.js}`, type: BOOL }
    const kind = scalarOf(value.type)
    const apply = operator === '~' ? (kind === 'u32' ? '~x >>> 0' : '~x') : kind === 'i32' ? '-x | 0' : '-x'
    return { js: `h.map((x) => ${apply}, ${value.js})`, type: value.type }
  }

  #binary(operator: string, a: Code, b: Code): Code {
    if (operator === '&&' || operator === '||') return { js: `(${this.#read(a).js} ${operator} ${this.#read(b).js})`, type: BOOL }
    if (a.type.kind === 'int' && b.type.kind === 'int' && OPERATORS[`i32${operator}`])
      return { js: String(OPERATORS[`i32${operator}`]?.(Number(a.js.replace(/[()]/g, '')), Number(b.js.replace(/[()]/g, '')))), type: a.type }
    // A shift's right side is u32, whatever the left is.
    const left = this.#read(a, b.type)
    const right = this.#read(b, operator === '<<' || operator === '>>' ? U32 : a.type)
    const kind = scalarOf(left.type)
    const isComparison = OPERATORS[operator] !== undefined
    const name = isComparison ? operator : `${kind}${operator}`
    if (!OPERATORS[name]) throw new SyntaxError(`no WGSL operator ${operator} for ${kind}`)
    if (!isComparison && !/<<|>>/.test(operator) && kind !== scalarOf(right.type))
      throw new SyntaxError(`${kind} ${operator} ${scalarOf(right.type)}`)
    const wide = left.type.kind === 'vector' ? left.type : right.type
    const type = isComparison ? (wide.kind === 'vector' ? vector('bool', wide.width) : BOOL) : wide
    const js = wide.kind === 'vector' ? `h.map(o['${name}'], ${left.js}, ${right.js})` : `o['${name}'](${left.js}, ${right.js})`
    return { js, type }
  }

  #call(callee: TypeName, args: readonly Expression[]): Code {
    const { name } = callee
    if (name === 'bitcast') {
      const value = this.#read(this.#expression(args[0] as Expression))
      const to = this.types.resolve(callee.args[0] as TypeName)
      return { js: `h.bits('${scalarOf(to)}', '${scalarOf(value.type)}', ${value.js})`, type: to }
    }
    if (name === 'subgroupMatrixLoad' || name === 'subgroupMatrixStore') return this.#matrixAccess(callee, args)
    if (this.types.isType(callee)) return this.#construct(this.types.resolve(callee), args)
    const own = this.#functions.get(name)
    const wanted = own?.parameters.map((p) => this.types.resolve(p.type))
    const codes = args.map((a) => this.#expression(a))
    const known = codes.find(({ type }) => type.kind !== 'int')?.type
    const values = codes.map((code, i) => this.#read(code, wanted?.[i] ?? known))
    const js = values.map((v) => v.js)
    const [first = { js: '', type: VOID }] = values
    if (own) return { js: `f_${name}(${js.join(', ')})`, type: own.result ? this.types.resolve(own.result) : VOID }
    if (name === 'workgroupBarrier' || name === 'storageBarrier') return { js: this.#wait(`{ kind: 'barrier' }`), type: VOID }
    if (SUBGROUP_OPERATIONS.includes(name))
      return { js: this.#wait(`{ kind: '${name}', value: ${js[0]}, argument: ${js[1] ?? 0} }`), type: first.type }
    if (name === 'subgroupMatrixMultiplyAccumulate') {
      const sum = values[2] as Code
      return { js: this.#wait(`{ kind: 'uniform', run: () => h.multiply(${js.join(', ')}) }`), type: sum.type }
    }
    if (name === 'select') {
      const of = first.type
      const js3 = values[2]?.type.kind === 'vector' ? `h.map((a, b, c) => (c ? b : a), ${js.join(', ')})` : `(${js[2]} ? ${js[1]} : ${js[0]})`
      return { js: js3, type: of }
    }
    if (name === 'unpack4xI8') return { js: `f.unpack4xI8(${js.join(', ')})`, type: vector('i32', 4) }
    if (!Object.hasOwn(FUNCTIONS, name)) throw new SyntaxError(`no WGSL function ${name}`)
    const results: Record<string, Type> = { dot: F32, pack2x16float: U32, unpack2x16float: vector('f32', 2) }
    const widest = values.find(({ type }) => type.kind === 'vector')?.type ?? first.type
    return { js: `f.${name}(${js.join(', ')})`, type: results[name] ?? widest }
  }

  /** Where all invocations of a subgroup, or of the workgroup, come together. */
  #wait(operation: string): string {
    if (!this.#isEntry) throw new SyntaxError('barriers and subgroup operations are emulated in the entry point alone')
    return `(yield ${operation})`
  }

  #matrixAccess({ name, args: types }: TypeName, args: readonly Expression[]): Code {
    const isLoad = name === 'subgroupMatrixLoad'
    const [memory, ...others] = args.map((a) => this.#expression(a)) as [Code, ...Code[]]
    if (!memory.place || memory.place === 'private' || memory.type.kind !== 'array') throw new SyntaxError(`${name} of what is no array in memory`)
    const bytes = strideOf(memory.type)
    const columnMajor = JSON.stringify(types.at(-1)).includes('col_major')
    const values = others.map((o) => this.#read(o, U32).js)
    const from = memory.place.memory
    if (!isLoad) {
      const [offset, matrix, stride] = values
      const store = `h.storeMatrix(${from}, ${matrix}, ${offset} * ${bytes}, ${stride} * ${bytes}, ${columnMajor})`
      return { js: this.#wait(`{ kind: 'uniform', argument: ${offset}, run: () => ${store} }`), type: VOID }
    }
    const type = this.types.resolve(types[0] as TypeName)
    if (type.kind !== 'matrix') throw new SyntaxError('subgroupMatrixLoad of what is no matrix')
    const [offset, stride] = values
    const load = `h.loadMatrix(${from}, '${type.component}', ${offset} * ${bytes}, ${stride} * ${bytes}, ${columnMajor})`
    return { js: this.#wait(`{ kind: 'uniform', argument: ${offset}, run: () => ${load} }`), type }
  }

  #construct(type: Type, args: readonly Expression[]): Code {
    if (args.length === 0) return { js: this.#zero(type), type }
    const codes = args.map((a) => this.#expression(a))
    if (type.kind === 'array') return { js: `[${codes.map((c) => this.#read(c, type.of).js).join(', ')}]`, type }
    if (type.kind === 'struct')
      return { js: `{ ${type.members.map((member, i) => `${member.name}: ${this.#read(codes[i] as Code, member.type).js}`).join(', ')} }`, type }
    const kind = scalarOf(type)
    const convert = (code: Code) => {
      const value = this.#read(code, type)
      return scalarOf(value.type) === kind ? value.js : `h.to${kind.toUpperCase()}(${value.js})`
    }
    if (type.kind === 'scalar') return { js: convert(codes[0] as Code), type }
    if (type.kind !== 'vector') throw new SyntaxError(`a WGSL ${type.kind} is not made of values`)
    const elements = codes.map((code) => (code.type.kind === 'vector' ? `...${convert(code)}` : convert(code)))
    if (codes.length === 1 && codes[0]?.type.kind !== 'vector') return { js: `Array(${type.width}).fill(${elements[0]})`, type }
    return { js: `[${elements.join(', ')}]`, type }
  }

  #zero(type: Type): string {
    if (type.kind === 'matrix') return 'h.zeros()'
    if (type.kind === 'scalar') return type.scalar === 'bool' ? 'false' : '0'
    if (type.kind === 'vector') return `Array(${type.width}).fill(${type.scalar === 'bool' ? 'false' : '0'})`
    if (type.kind === 'array') return `Array.from({ length: ${type.count} }, () => ${this.#zero(type.of)})`
    if (type.kind === 'struct') return `{ ${type.members.map((m) => `${m.name}: ${this.#zero(m.type)}`).join(', ')} }`
    throw new SyntaxError(`no zero of a WGSL ${type.kind}`)
  }
}

function scalarOf(type: Type): Scalar {
  if (type.kind === 'scalar' || type.kind === 'vector') return type.scalar
  if (type.kind === 'int') return 'i32'
  throw new SyntaxError(`a WGSL ${type.kind} where a number should be`)
}

const isComposite = (type: Type) => type.kind === 'vector' || type.kind === 'array' || type.kind === 'struct'
/** A value of its own, so that a change of one name is none of another. */
const copied = (js: string, type: Type) => (type.kind === 'vector' ? `[...${js}]` : `structuredClone(${js})`)
