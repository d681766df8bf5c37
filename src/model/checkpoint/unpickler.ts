// Reads the pickle of a PyTorch state dict without running anything: an allow-listed stack machine that knows the few
// functions and types that a state dict needs, and refuses every other name. Work is bounded by the bytes of the pickle.

import { CheckpointError } from '../../errors.js'
import { show } from '../../options/check.js'

/** A tensor as the pickle describes it; sizes in elements. */
export interface PickledTensor {
  readonly kind: 'tensor'
  readonly storage: PickledStorage
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
}

export interface PickledStorage {
  readonly kind: 'storage'
  /** As in torch: FloatStorage, BFloat16Storage, ... */
  readonly type: string
  /** Name of the zip entry below data/. */
  readonly key: string
  readonly elements: number
}

interface Callable {
  readonly kind: 'global'
  readonly name: string
}

type Value = undefined | boolean | number | string | Value[] | Map<Value, Value> | PickledTensor | PickledStorage | Callable

const STORAGES = [
  'FloatStorage',
  'HalfStorage',
  'BFloat16Storage',
  'DoubleStorage',
  'LongStorage',
  'IntStorage',
  'ShortStorage',
  'CharStorage',
  'ByteStorage',
  'BoolStorage',
]
const ALLOWED = new Set([
  'torch._utils._rebuild_tensor_v2',
  'torch._utils._rebuild_parameter',
  'collections.OrderedDict',
  ...STORAGES.map((s) => `torch.${s}`),
])

const MARK = Symbol('mark')
const MOST_BYTES = 64 << 20

/** Tensors of the state dict by name. Throws CheckpointError CHECKPOINT_UNSAFE or CHECKPOINT_INVALID. */
export function unpickleStateDict(bytes: Uint8Array, path: string): Map<string, PickledTensor> {
  if (bytes.length > MOST_BYTES) throw damaged(path, `its pickle has ${bytes.length} bytes`, `at most ${MOST_BYTES}`)
  const value = new Unpickler(bytes, path).run()
  if (!(value instanceof Map)) throw damaged(path, 'its pickle holds no dict', 'a state dict: names to tensors')
  const tensors = new Map<string, PickledTensor>()
  for (const [name, tensor] of value) {
    if (typeof name !== 'string' || !isTensor(tensor)) throw damaged(path, `its entry ${show(name)} is no tensor`, 'names to tensors')
    tensors.set(name, tensor)
  }
  return tensors
}

function isTensor(value: unknown): value is PickledTensor {
  return typeof value === 'object' && value !== null && (value as { kind?: unknown }).kind === 'tensor'
}

function damaged(path: string, what: string, expected: string, cause?: unknown): CheckpointError {
  return new CheckpointError('CHECKPOINT_INVALID', {
    what: `${path}: ${what}`,
    expected,
    remedy: 'Save the state dict again with torch.save, or fetch the file again.',
    cause,
  })
}

class Unpickler {
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
        if (typeof module !== 'string' || typeof name !== 'string') throw this.#unsafe('names a global by no text')
        return this.#global(module, name)
      }
      case 0x51: // BINPERSID
        return this.#push(this.#storage(this.#pop()))
      case 0x52: {
        // REDUCE
        const [callable, args] = this.#popMany(2)
        return this.#push(this.#call(callable, args))
      }
      case 0x62: // BUILD: an OrderedDict's attributes (_metadata); they are dropped
        this.#pop()
        if (!(this.#top() instanceof Map)) throw this.#unsafe('sets the state of an object')
        return
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
    if (!Array.isArray(list)) throw damaged(this.#path, 'its pickle appends to what is no list', 'a state dict')
    for (const value of values) list.push(value)
  }

  #setItems(values: Value[]): void {
    const dict = this.#top()
    if (!(dict instanceof Map) || values.length % 2 !== 0) throw damaged(this.#path, 'its pickle sets items of what is no dict', 'a state dict')
    for (let i = 0; i < values.length; i += 2) dict.set(values[i], values[i + 1])
  }

  #global(module: string, name: string): void {
    const full = `${module}.${name}`
    if (!ALLOWED.has(full)) throw this.#unsafe(`names ${full.slice(0, 120)}`)
    this.#push({ kind: 'global', name: full })
  }

  #storage(id: Value): PickledStorage {
    if (Array.isArray(id)) {
      const [tag, type, key, , count] = id
      const torchType = isGlobal(type) && type.name.startsWith('torch.') ? type.name.slice(6) : undefined
      if (tag === 'storage' && torchType && STORAGES.includes(torchType) && typeof key === 'string' && isSize(count)) {
        return { kind: 'storage', type: torchType, key, elements: count }
      }
    }
    throw damaged(this.#path, 'its pickle refers to a storage that is none', "('storage', type, key, device, elements)")
  }

  #call(callable: Value, args: Value): Value {
    if (!isGlobal(callable) || !Array.isArray(args)) throw this.#unsafe('calls what is no function')
    if (callable.name === 'collections.OrderedDict' && args.length === 0) return new Map()
    if (callable.name === 'torch._utils._rebuild_parameter') {
      if (isTensor(args[0])) return args[0]
    } else if (callable.name === 'torch._utils._rebuild_tensor_v2') {
      const [storage, offset, shape, strides] = args
      if (isStorage(storage) && isSize(offset) && isSizes(shape) && isSizes(strides) && shape.length === strides.length) {
        return { kind: 'tensor', storage, offset, shape, strides }
      }
    }
    throw damaged(this.#path, `its pickle calls ${callable.name} with other arguments than torch writes`, 'a state dict')
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

function isGlobal(value: Value): value is Callable {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && 'kind' in value && value.kind === 'global'
}

function isStorage(value: Value): value is PickledStorage {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && 'kind' in value && value.kind === 'storage'
}

function isSize(value: Value): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function isSizes(value: Value): value is number[] {
  return Array.isArray(value) && value.length <= 8 && value.every(isSize)
}
