// Types of WGSL values, and where these lie in memory.
import type { Module, TypeName } from './parser.js'

export type Scalar = 'u32' | 'i32' | 'f32' | 'bool'

export type Type =
  /** An integer literal, which takes the type of what it meets. */
  | { readonly kind: 'int' }
  | { readonly kind: 'scalar'; readonly scalar: Scalar }
  | { readonly kind: 'vector'; readonly scalar: Scalar; readonly width: number }
  /** count undefined: as many as the buffer holds. */
  | { readonly kind: 'array'; readonly of: Type; readonly count: number | undefined }
  | {
      readonly kind: 'struct'
      readonly name: string
      readonly members: readonly { readonly name: string; readonly type: Type; readonly offset: number }[]
    }
  | { readonly kind: 'matrix'; readonly component: 'f16' | 'f32'; readonly use: 'left' | 'right' | 'result' }
  | { readonly kind: 'void' }

export const VOID: Type = { kind: 'void' }
export const scalar = (of: Scalar): Type => ({ kind: 'scalar', scalar: of })
export const [U32, I32, F32, BOOL] = [scalar('u32'), scalar('i32'), scalar('f32'), scalar('bool')] as const
export const vector = (of: Scalar, width: number): Type => ({ kind: 'vector', scalar: of, width })

/** Rows and columns of subgroup matrices. */
export const SIDE = 16

export class Types {
  readonly #module: Module
  readonly #structs = new Map<string, Type>()

  constructor(module: Module) {
    this.#module = module
  }

  resolve({ name, args }: TypeName): Type {
    if (name === 'u32' || name === 'i32' || name === 'f32' || name === 'bool') return scalar(name)
    const [first, second] = args
    const width = /^vec([234])$/.exec(name)?.[1]
    if (width !== undefined && typeof first === 'object') return vector(first.name as Scalar, Number(width))
    if (name === 'array' && typeof first === 'object') return { kind: 'array', of: this.resolve(first), count: second as number | undefined }
    const use = /^subgroup_matrix_(left|right|result)$/.exec(name)?.[1] as 'left' | 'right' | 'result' | undefined
    if (use !== undefined && typeof first === 'object') {
      if (args[1] !== SIDE || args[2] !== SIDE) throw new SyntaxError(`subgroup matrices of ${SIDE} x ${SIDE} are emulated, not ${args.slice(1)}`)
      return { kind: 'matrix', component: first.name as 'f16' | 'f32', use }
    }
    const alias = this.#module.aliases.get(name)
    if (alias) return this.resolve(alias)
    return this.#struct(name)
  }

  isType({ name, args }: TypeName): boolean {
    return args.length > 0 || /^([uif]32|bool)$/.test(name) || this.#module.aliases.has(name) || this.#module.structs.has(name)
  }

  #struct(name: string): Type {
    const known = this.#structs.get(name)
    if (known) return known
    const members = this.#module.structs.get(name)
    if (!members) throw new SyntaxError(`no WGSL type ${name}`)
    let at = 0
    const placed = members.map((member) => {
      const type = this.resolve(member.type)
      at = rounded(at, alignOf(type))
      const offset = at
      at += sizeOf(type)
      return { name: member.name, type, offset }
    })
    const struct: Type = { kind: 'struct', name, members: placed }
    this.#structs.set(name, struct)
    return struct
  }
}

const rounded = (n: number, to: number) => Math.ceil(n / to) * to

export function alignOf(type: Type): number {
  if (type.kind === 'vector') return type.width === 2 ? 8 : 16
  if (type.kind === 'array') return alignOf(type.of)
  if (type.kind === 'struct') return Math.max(...type.members.map((m) => alignOf(m.type)))
  return 4
}

/** Bytes; of an array without a count, of one element. */
export function sizeOf(type: Type): number {
  if (type.kind === 'vector') return 4 * type.width
  if (type.kind === 'array') return strideOf(type) * (type.count ?? 1)
  if (type.kind === 'struct') {
    const last = type.members.at(-1)
    return rounded((last?.offset ?? 0) + (last ? sizeOf(last.type) : 0), alignOf(type))
  }
  if (type.kind === 'scalar') return 4
  throw new SyntaxError(`a WGSL ${type.kind} has no place in memory`)
}

/** Bytes from one element of an array to the next. */
export function strideOf(type: Type & { readonly kind: 'array' }): number {
  return rounded(sizeOf(type.of), alignOf(type.of))
}
