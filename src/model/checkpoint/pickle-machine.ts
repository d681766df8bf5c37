// The stack machine of pickles without anything that runs: an allow-list of the few functions and types that a state dict needs, and
// every other name refused. Work is bounded by the bytes of the pickle.
import { basename } from 'node:path'
import { CheckpointError } from '../../errors.js'
import { isAllowed, REBUILD, refusedGlobal, STORAGES, TENSOR_TYPES } from './pickle-globals.js'
import { damaged, describe, isKind, isTensor, type PickledStorage, type PickledTensor, type Value } from './pickle-values.js'
import { PYTHON } from './python-lines.js'

const MARK = Symbol('mark')

/** Makes the value of one pickle. Throws CheckpointError. */
export class Unpickler {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #path: string
  readonly #stack: (Value | typeof MARK)[] = []
  readonly #memo = new Map<number, Value>()
  #at = 0

  constructor(bytes: Uint8Array, path: string) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#path = path
  }

  run(): Value {
    for (;;) {
      const op = this.#byte()
      if (op === 0x2e) return this.#pop() // STOP
      this.#execute(op)
    }
  }

  #execute(op: number): void {
    switch (op) {
      case 0x80: // PROTO
        this.#byte()
        return
      case 0x95: // FRAME
        this.#take(8)
        return
      case 0x28: // MARK
        this.#stack.push(MARK)
        return
      case 0x4e: // NONE
        return this.#push(undefined)
      case 0x88: // NEWTRUE
        return this.#push(true)
      case 0x89: // NEWFALSE
        return this.#push(false)
      case 0x4b: // BININT1
        return this.#push(this.#byte())
      case 0x4d: // BININT2
        return this.#push(this.#view.getUint16(this.#take(2), true))
      case 0x4a: // BININT
        return this.#push(this.#view.getInt32(this.#take(4), true))
      case 0x8a: // LONG1
        return this.#push(this.#long(this.#byte()))
      case 0x47: // BINFLOAT
        return this.#push(this.#view.getFloat64(this.#take(8), false))
      case 0x58: // BINUNICODE
        return this.#push(this.#text(this.#view.getUint32(this.#take(4), true)))
      case 0x8c: // SHORT_BINUNICODE
        return this.#push(this.#text(this.#byte()))
      case 0x8d: // BINUNICODE8
        return this.#push(this.#text(this.#length8()))
      case 0x43: // SHORT_BINBYTES
        this.#take(this.#byte())
        return this.#push({ kind: 'opaque', type: 'bytes' })
      case 0x42: // BINBYTES
        this.#take(this.#view.getUint32(this.#take(4), true))
        return this.#push({ kind: 'opaque', type: 'bytes' })
      case 0x8e: // BINBYTES8, BYTEARRAY8
      case 0x96:
        this.#take(this.#length8())
        return this.#push({ kind: 'opaque', type: 'bytes' })
      case 0x8f: // EMPTY_SET
        return this.#push({ kind: 'opaque', type: 'set' })
      case 0x90: // ADDITEMS
        this.#popToMark()
        return
      case 0x91: // FROZENSET
        this.#popToMark()
        return this.#push({ kind: 'opaque', type: 'frozenset' })
      case 0x29: // EMPTY_TUPLE
      case 0x5d: // EMPTY_LIST
        return this.#push([])
      case 0x7d: // EMPTY_DICT
        return this.#push(new Map())
      case 0x85: // TUPLE1, TUPLE2, TUPLE3
      case 0x86:
      case 0x87:
        return this.#push(this.#popMany(op - 0x84))
      case 0x74: // TUPLE
        return this.#push(this.#popToMark())
      case 0x61: // APPEND
        return this.#append([this.#pop()])
      case 0x65: // APPENDS
        return this.#append(this.#popToMark())
      case 0x73: // SETITEM
        return this.#setItems(this.#popMany(2))
      case 0x75: // SETITEMS
        return this.#setItems(this.#popToMark())
      case 0x71: // BINPUT
        return this.#remember(this.#byte())
      case 0x72: // LONG_BINPUT
        return this.#remember(this.#view.getUint32(this.#take(4), true))
      case 0x94: // MEMOIZE
        return this.#remember(this.#memo.size)
      case 0x68: // BINGET
        return this.#recall(this.#byte())
      case 0x6a: // LONG_BINGET
        return this.#recall(this.#view.getUint32(this.#take(4), true))
      case 0x63: // GLOBAL
        return this.#global(this.#line(), this.#line())
      case 0x93: {
        // STACK_GLOBAL
        const [module, name] = this.#popMany(2)
        if (typeof module !== 'string' || typeof name !== 'string') throw this.#unsafe('names a global by a value that is not text')
        return this.#global(module, name)
      }
      case 0x51: // BINPERSID
        return this.#push(this.#storage(this.#pop()))
      case 0x52: {
        // REDUCE
        const [callable, args] = this.#popMany(2)
        return this.#push(this.#call(callable, args))
      }
      case 0x62: {
        // BUILD: an OrderedDict's attributes (_metadata), or a numpy value's state; they are dropped
        this.#pop()
        const target = this.#top()
        if (!(target instanceof Map) && !isKind(target, 'opaque')) throw this.#unsafe('sets the state of an object')
        return
      }
      default:
        throw this.#unsafe(`uses the opcode 0x${op.toString(16)} at byte ${this.#at - 1}`)
    }
  }

  #byte(): number {
    return this.#bytes[this.#take(1)] as number
  }

  /** Offset of the next n bytes, which are then behind us. */
  #take(n: number): number {
    const at = this.#at
    if (n > this.#bytes.length - at) throw damaged(this.#path, `its pickle ends inside a value at byte ${at}`, 'a whole pickle')
    this.#at = at + n
    return at
  }

  #length8(): number {
    const length = this.#view.getBigUint64(this.#take(8), true)
    if (length > BigInt(this.#bytes.length)) throw damaged(this.#path, `its pickle holds a value of ${length} bytes`, 'a value inside the pickle')
    return Number(length)
  }

  #text(length: number): string {
    const at = this.#take(length)
    return new TextDecoder().decode(this.#bytes.subarray(at, at + length))
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at)
    if (end < 0 || end - this.#at > 512) throw damaged(this.#path, 'its pickle holds a name without an end', 'a whole pickle')
    const text = this.#text(end - this.#at)
    this.#at++
    return text
  }

  #long(length: number): number {
    const at = this.#take(length)
    if (length > 8) throw damaged(this.#path, `its pickle holds an integer of ${length} bytes`, 'at most 8')
    let value = 0n
    for (let i = 0; i < length; i++) value |= BigInt(this.#bytes[at + i] as number) << BigInt(8 * i)
    return Number(BigInt.asIntN(Math.max(8 * length, 1), value))
  }

  #push(value: Value): void {
    this.#stack.push(value)
  }

  #pop(): Value {
    const value = this.#stack.pop()
    if (value === MARK || (value === undefined && this.#stack.length === 0))
      throw damaged(this.#path, 'its pickle takes from an empty stack', 'a whole pickle')
    return value as Value
  }

  #top(): Value {
    const value = this.#stack.at(-1)
    return value === MARK ? undefined : value
  }

  #popMany(n: number): Value[] {
    return Array.from({ length: n }, () => this.#pop()).reverse()
  }

  #popToMark(): Value[] {
    const mark = this.#stack.lastIndexOf(MARK)
    if (mark < 0) throw damaged(this.#path, 'its pickle closes what it never opened', 'a whole pickle')
    const values = this.#stack.splice(mark)
    return values.slice(1) as Value[]
  }

  #remember(key: number): void {
    this.#memo.set(key, this.#top())
  }

  #recall(key: number): void {
    if (!this.#memo.has(key)) throw damaged(this.#path, `its pickle recalls ${key}, which it never stored`, 'a whole pickle')
    this.#push(this.#memo.get(key))
  }

  #append(values: Value[]): void {
    const list = this.#top()
    if (!Array.isArray(list)) throw damaged(this.#path, 'its pickle appends to a value that is not a list', 'a state dict')
    for (const value of values) list.push(value)
  }

  #setItems(values: Value[]): void {
    const dict = this.#top()
    if (!(dict instanceof Map) || values.length % 2 !== 0)
      throw damaged(this.#path, 'its pickle sets items of a value that is not a dict', 'a state dict')
    for (let i = 0; i < values.length; i += 2) dict.set(values[i], values[i + 1])
  }

  #global(module: string, name: string): void {
    const full = `${module}.${name}`
    if (!isAllowed(full)) throw refusedGlobal(full, this.#path, this.#bytes)
    this.#push({ kind: 'global', name: full })
  }

  #storage(id: Value): PickledStorage {
    if (Array.isArray(id)) {
      const [tag, type, key, , count] = id
      const torchType = isKind(type, 'global') && type.name.startsWith('torch.') ? type.name.slice(6) : undefined
      if (tag === 'storage' && torchType && STORAGES.includes(torchType) && typeof key === 'string' && isSize(count)) {
        return { kind: 'storage', type: torchType, key, elements: count }
      }
    }
    throw damaged(this.#path, 'its pickle references an invalid storage', "('storage', type, key, device, elements)")
  }

  #call(callable: Value, args: Value): Value {
    if (!isKind(callable, 'global') || !Array.isArray(args)) throw this.#unsafe('calls a value that is not a function')
    switch (callable.name) {
      case REBUILD.orderedDict:
        if (args.length === 0) return new Map()
        break
      case REBUILD.parameter:
      case REBUILD.parameterWithState:
        if (isTensor(args[0])) return args[0]
        break
      case REBUILD.fromType: {
        const [rebuild, type, inner] = args
        if (!isKind(type, 'global') || !TENSOR_TYPES.includes(type.name)) break
        if (!isKind(rebuild, 'global') || rebuild.name === REBUILD.fromType) break
        const tensor = this.#call(rebuild, inner)
        if (isTensor(tensor)) return tensor
        break
      }
      case REBUILD.tensor:
        return this.#tensor(args)
      case 'torch.Size':
        if (args.length === 1 && Array.isArray(args[0])) return args[0]
        break
      default:
        if (!TENSOR_TYPES.includes(callable.name) && !callable.name.endsWith('Storage')) return { kind: 'opaque', type: callable.name }
    }
    throw damaged(this.#path, `its pickle calls ${callable.name} with other arguments than torch writes`, 'a state dict')
  }

  /** (storage, offset, shape, strides, requires_grad, backward_hooks, metadata): the last says which bits a view sets. */
  #tensor(args: readonly Value[]): PickledTensor {
    const [storage, offset, shape, strides, , , metadata] = args
    if (args.length > 7 || (metadata !== undefined && !(metadata instanceof Map))) {
      throw damaged(
        this.#path,
        `a tensor of its pickle has an argument that is not known: ${describe(args[7] ?? metadata)}`,
        'at most 7 arguments, the last a dict',
      )
    }
    const bits = [...((metadata as Map<Value, Value> | undefined) ?? [])]
      .filter(([, isSet]) => isSet !== false)
      .map(([bit]) => String(bit).slice(0, 40))
    if (bits.length > 0) {
      throw new CheckpointError('CHECKPOINT_INVALID', {
        what: `${this.#path}: a tensor is stored as a view with the bit ${bits.join(', ')} set (torch._neg_view, conj or the like)`,
        expected: 'tensors whose values are those stored',
        actual: `${bits.join(', ')}: True`,
        remedy: `Save copies without it: ${PYTHON.resolve(basename(this.#path))}`,
      })
    }
    if (isKind(storage, 'storage') && isSize(offset) && isSizes(shape) && isSizes(strides) && shape.length === strides.length) {
      return { kind: 'tensor', storage, offset, shape, strides }
    }
    throw damaged(this.#path, `its pickle calls ${REBUILD.tensor} with other arguments than torch writes`, 'a state dict')
  }

  #unsafe(does: string): CheckpointError {
    return new CheckpointError('CHECKPOINT_UNSAFE', {
      what: `${this.#path}: its pickle ${does}`,
      expected: 'only what a state dict of tensors needs',
      actual: does,
      remedy: 'Do not use this file; ask for safetensors. Nothing of it was run.',
    })
  }
}

function isSize(value: Value): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function isSizes(value: Value): value is number[] {
  return Array.isArray(value) && value.length <= 8 && value.every(isSize)
}
