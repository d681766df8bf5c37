// The names that a pickle may refer to, and what a refused name says about the file. Nothing that a name stands for is ever run.
import { basename } from 'node:path'
import { CheckpointError, type ErrorFacts } from '../../errors.js'
import { PYTHON } from './python-lines.js'

export const STORAGES = [
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
  'ComplexFloatStorage',
  'ComplexDoubleStorage',
]

/** Functions and types that make a tensor; the unpickler knows what each does. */
export const REBUILD = {
  tensor: 'torch._utils._rebuild_tensor_v2',
  parameter: 'torch._utils._rebuild_parameter',
  parameterWithState: 'torch._utils._rebuild_parameter_with_state',
  /** Tensors with attributes: nn.Buffer, and any tensor that was given one. */
  fromType: 'torch._tensor._rebuild_from_type_v2',
  orderedDict: 'collections.OrderedDict',
} as const

/** Types that _rebuild_from_type_v2 may name: they hold what the tensor inside holds. */
export const TENSOR_TYPES = ['torch.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer']

const DTYPES = ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool', 'complex64', 'complex128']
const NUMPY = ['numpy.core', 'numpy._core']

/** What checkpoints keep beside weights. Calls of them give a value that is looked at no further. */
const INERT = [
  ...NUMPY.flatMap((core) => [`${core}.multiarray.scalar`, `${core}.multiarray._reconstruct`]),
  'numpy.dtype',
  'numpy.ndarray',
  '_codecs.encode',
  'torch.Size',
  'torch.device',
  'collections.Counter',
  ...['builtins', '__builtin__'].flatMap((module) => ['set', 'frozenset', 'complex', 'bytearray', 'slice'].map((name) => `${module}.${name}`)),
  ...DTYPES.map((name) => `torch.${name}`),
]

const ALLOWED = new Set<string>([...Object.values(REBUILD), ...TENSOR_TYPES, ...INERT, ...STORAGES.map((s) => `torch.${s}`)])

export function isAllowed(name: string): boolean {
  return ALLOWED.has(name)
}

/** A kind of file that torch writes and Tetrad does not read. text: the pickle's bytes as latin1, where later names are found. */
interface Refusal {
  readonly matches: (name: string, text: string) => boolean
  readonly error: (name: string, file: string, text: string) => Omit<ErrorFacts, 'what'> & { is: string; code: CheckpointError['code'] }
}

/** Modules whose functions and classes reach the system: a file that names them is not one to trust. */
const DANGEROUS =
  /^(os|posix|nt|sys|subprocess|builtins|__builtin__|runpy|importlib|pkgutil|imp|zipimport|socket|ssl|http|urllib|ftplib|smtplib|shutil|pathlib\.os|tempfile|pty|tty|ctypes|cffi|code|codeop|codecs|_codecs|webbrowser|pickle|_pickle|cPickle|marshal|shelve|operator|_operator|functools|itertools|timeit|bdb|pdb|profile|cProfile|trace|doctest|unittest|asyncio|multiprocessing|threading|_thread|concurrent|signal|platform|commands|inspect|types\.(CodeType|FunctionType|MethodType)|pip|setuptools|distutils|torch\.(load|hub|utils\.cpp_extension|jit|serialization|package|ops|_C)|numpy\.(testing|f2py|distutils|load|lib))\b/

const trusted = 'Only if you trust who made the file, since this runs its code: '

const REFUSALS: readonly Refusal[] = [
  {
    matches: (name, text) =>
      /^torch\._utils\._rebuild_(wrapper_subclass|tensor_v3)$|^torch\.distributed\./.test(name) && /torch\.distributed/.test(text),
    error: (_name, file) => ({
      is: 'holds DTensors, the parts of tensors that one rank of a distributed training held',
      code: 'CHECKPOINT_INVALID',
      expected: 'whole tensors',
      actual: 'DTensor',
      remedy: `Save whole tensors: ${PYTHON.fullTensors(file)}`,
    }),
  },
  {
    matches: (name) => name === 'torch._utils._rebuild_tensor_v3' || /^torch\.(float8_|float4_|uint(16|32|64)$|int[1-7]$|uint[1-7]$|bits)/.test(name),
    error: (name, file, text) => {
      const type = /float8_[a-z0-9]+|float4_[a-z0-9_]+|uint(?:16|32|64)/.exec(`${name} ${text}`)?.[0]
      return {
        is: `holds tensors of ${type ?? 'a type such as float8'} (it names ${name})`,
        code: 'TENSOR_DTYPE',
        expected: 'float32, float16, bfloat16 or float64',
        actual: type ?? name,
        remedy: `Convert them: ${PYTHON.bfloat16(file)} (float8 weights with scales beside them, weight_scale_inv or the like, must be multiplied by these first).`,
      }
    },
  },
  {
    matches: (name) =>
      name.startsWith('torch._utils._rebuild_qtensor') ||
      name.startsWith('torch.per_') ||
      name.startsWith('torch.quint') ||
      name.startsWith('torch.qint'),
    error: (name, file) => ({
      is: `holds quantized tensors (it names ${name})`,
      code: 'TENSOR_DTYPE',
      expected: 'float32, float16, bfloat16 or float64',
      actual: name,
      remedy: `Dequantize them: ${PYTHON.dequantize(file)}`,
    }),
  },
  {
    matches: (name) => /^torch\._utils\._rebuild_(sparse|nested|meta)/.test(name),
    error: (name, file) => ({
      is: `holds tensors that are not dense or have no data (it names ${name})`,
      code: 'CHECKPOINT_INVALID',
      expected: 'dense tensors',
      actual: name,
      remedy: `Save dense tensors: ${PYTHON.dense(file)}`,
    }),
  },
  {
    matches: (name) => /^torch\._utils\._rebuild_wrapper_subclass$|^torchao\.|^torch\._tensor\._rebuild_from_type$/.test(name),
    error: (name, file) => ({
      is: `holds tensors of a subclass, quantized or distributed (it names ${name})`,
      code: 'TENSOR_DTYPE',
      expected: 'plain tensors',
      actual: name,
      remedy: `Save plain tensors: ${PYTHON.dequantize(file)}, or for DTensor ${PYTHON.fullTensors(file)}`,
    }),
  },
  {
    matches: (name) => name.startsWith('__torch__.') || name.startsWith('torch.jit.'),
    error: (name, file) => ({
      is: `is a TorchScript archive (it names ${name})`,
      code: 'CHECKPOINT_UNSAFE',
      expected: 'a state dict of tensors',
      actual: name,
      remedy: `Save its state dict. Only if you trust who made the file: python -c "import torch; torch.save(torch.jit.load('${file}').state_dict(), 'pytorch_model.bin')"`,
    }),
  },
  {
    matches: (name, text) =>
      /^torch\.nn\.(?!parameter\.)|^__main__\.|^transformers\..*(model|Model)|^torch\._dynamo\.|^torch\.fx\./.test(name) ||
      (!DANGEROUS.test(name) && /torch\.nn\.modules\.|_parameters\b/.test(text)),
    error: (name, file) => ({
      is: `holds a pickled module or an object of a class of its own (it names ${name}), which only its code could make`,
      code: 'CHECKPOINT_UNSAFE',
      expected: 'a state dict of tensors',
      actual: name,
      remedy: `Save model.state_dict() instead of the model. ${trusted}${PYTHON.stateDict(file)} (a checkpoint that keeps the weights under a key: ${PYTHON.only(file, 'model')}). Nothing of it was run.`,
    }),
  },
  {
    // A class is named in CamelCase; a function is what hostile files call.
    matches: (name) =>
      !DANGEROUS.test(name) &&
      /\.[A-Z]\w*$|^(argparse|pathlib|datetime|collections|decimal|enum|types\.SimpleNamespace|omegaconf|transformers|accelerate|lightning|pytorch_lightning|torch\.optim|torch\.utils|numpy|random|easydict|ml_collections|hydra)\b/.test(
        name,
      ),
    error: (name, file) => ({
      is: `names ${name}: it keeps an object beside the weights that only code could make`,
      code: 'CHECKPOINT_UNSAFE',
      expected: 'a state dict of tensors',
      actual: name,
      remedy: `Save the state dict alone. ${trusted}${PYTHON.only(file, 'model')} (or the key that holds the weights). Nothing of it was run.`,
    }),
  },
]

/** The error of a pickle that refers to a name that is not allowed. */
export function refusedGlobal(name: string, path: string, pickle: Uint8Array): CheckpointError {
  const short = name.slice(0, 120)
  const text = Buffer.from(pickle.buffer, pickle.byteOffset, pickle.byteLength).toString('latin1')
  const refusal = REFUSALS.find(({ matches }) => matches(name, text))
  if (refusal) {
    const { is, code, ...facts } = refusal.error(short, basename(path), text)
    return new CheckpointError(code, { what: `${path}: its pickle ${is}`, ...facts })
  }
  return new CheckpointError('CHECKPOINT_UNSAFE', {
    what: `${path}: its pickle names ${short}`,
    expected: 'only what a state dict of tensors needs',
    actual: `names ${short}`,
    remedy: 'Do not use this file; ask for safetensors. Nothing of it was run.',
  })
}
