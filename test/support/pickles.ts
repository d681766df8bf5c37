// Pieces of pickles as torch.save writes them (protocol 2), for files that torch-file.ts has no options for.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PlainTensor } from './models.js'
import { contiguousStrides, zip } from './torch-file.js'

const u32 = (n: number) => Buffer.from(Uint32Array.of(n).buffer)
export const bytes = (...parts: (Buffer | string)[]) => Buffer.concat(parts.map((p) => (typeof p === 'string' ? Buffer.from(p, 'latin1') : p)))
export const text = (s: string) => bytes('X', u32(Buffer.byteLength(s)), Buffer.from(s))
export const int = (n: number) => bytes('J', u32(n))
export const tuple = (...items: Buffer[]) => bytes('(', ...items, 't')
export const dict = (...items: (readonly [string, Buffer])[]) => bytes('}(', ...items.flatMap(([key, value]) => [text(key), value]), 'u')
export const global = (module: string, name: string) => bytes(`c${module}\n${name}\n`)
export const call = (callable: Buffer, ...args: Buffer[]) => bytes(callable, tuple(...args), 'R')
export const TRUE = bytes('\x88')
export const FALSE = bytes('\x89')
export const NONE = bytes('N')
const hooks = call(global('collections', 'OrderedDict'))
export const REBUILD = global('torch._utils', '_rebuild_tensor_v2')

/** Arguments of _rebuild_tensor_v2 for a whole storage; extra: a seventh argument and beyond. */
export function tensorArgs(key: string, shape: readonly number[], storage = 'FloatStorage', extra: readonly Buffer[] = []): Buffer[] {
  const elements = shape.reduce((n, d) => n * d, 1)
  const id = bytes(tuple(text('storage'), global('torch', storage), text(key), text('cpu'), int(elements)), 'Q')
  return [id, int(0), tuple(...shape.map(int)), tuple(...contiguousStrides(shape).map(int)), FALSE, hooks, ...extra]
}

export const tensor = (key: string, shape: readonly number[], storage?: string, extra?: readonly Buffer[]) =>
  call(REBUILD, ...tensorArgs(key, shape, storage, extra))

/** nn.Parameter with attributes. */
export const parameterWithState = (value: Buffer) =>
  call(global('torch._utils', '_rebuild_parameter_with_state'), value, TRUE, hooks, dict(['tag', text('x')]))

/** nn.Buffer, or a tensor with attributes. */
export const buffer = (key: string, shape: readonly number[]) =>
  call(
    global('torch._tensor', '_rebuild_from_type_v2'),
    REBUILD,
    global('torch', 'Tensor'),
    tuple(...tensorArgs(key, shape)),
    dict(['_is_buffer', TRUE], ['persistent', TRUE]),
  )

/** numpy.float64(0) of numpy 2, as pickled at protocol 2. */
export const numpyScalar = call(
  global('numpy._core.multiarray', 'scalar'),
  bytes(call(global('numpy', 'dtype'), text('f8'), FALSE, TRUE), tuple(int(3), text('<'), NONE, NONE, NONE, int(-1), int(-1), int(0)), 'b'),
  call(global('_codecs', 'encode'), text('\0'.repeat(8)), text('latin1')),
)

export interface BinTensor extends PlainTensor {
  /** The pickled value; default: a plain tensor. Its storage is the tensor's index. */
  readonly pickled?: (key: string) => Buffer
}

/** The dict of tensors; names as given. */
export const stateDict = (tensors: readonly BinTensor[], rename = (name: string) => name) =>
  dict(...tensors.map(({ name, shape, pickled }, i) => [rename(name), pickled ? pickled(String(i)) : tensor(String(i), shape)] as const))

/** Writes dir/pytorch_model.bin: a pickled object over the storages of these float32 tensors. */
export function writeBin(dir: string, object: Buffer, tensors: readonly PlainTensor[], file = 'pytorch_model.bin'): void {
  const storages = tensors.map(({ values }, i) => ({
    name: `m/data/${i}`,
    data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
  }))
  writeFileSync(
    join(dir, file),
    zip([{ name: 'm/data.pkl', data: bytes('\x80\x02', object, '.') }, { name: 'm/byteorder', data: Buffer.from('little') }, ...storages]),
  )
}
