// What training scripts and torch versions write: read with the same logits, or refused by what it is with Python that helps.
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CheckpointError, Engine, type ErrorCode, inspect } from '../../src/index.js'
import { formatInspection } from '../../src/tools/format-inspection.js'
import { synthesize } from '../../src/tools/synth/synthesize.js'
import { copyOf, type PlainTensor, readTensors, temporary } from '../support/models.js'
import {
  type BinTensor,
  buffer,
  bytes,
  call,
  dict,
  FALSE,
  global,
  int,
  NONE,
  numpyScalar,
  parameterWithState,
  stateDict,
  TRUE,
  tensor,
  text,
  tuple,
  writeBin,
} from '../support/pickles.js'

const CONFIG = {
  n_layer: 1,
  n_head: 4,
  n_embd: 16,
  vocab_size: 40,
  block_size: 64,
  intermediate_size: 24,
  q_lora_rank: 8,
  kv_lora_rank: 16,
  qk_nope_head_dim: 8,
  qk_rope_head_dim: 4,
}

interface Model {
  readonly dir: string
  readonly tensors: readonly PlainTensor[]
}

/** A model directory whose weights the test writes. */
async function empty(t: { teardown(f: () => void): void }): Promise<Model> {
  const dir = temporary(t)
  await synthesize(dir, { variant: 'mlra_4', config: CONFIG, dtype: 'f32', seed: 4 })
  const tensors = await readTensors(dir)
  rmSync(join(dir, 'model.safetensors'))
  return { dir, tensors }
}

async function logits(dir: string): Promise<Float32Array> {
  const engine = await Engine.load(dir, { ranks: 1, cacheTokens: 64 })
  const result = await engine.logits([1, 2, 3])
  await engine.close()
  return result
}

async function plain(t: { teardown(f: () => void): void }, model: Model): Promise<Float32Array> {
  const dir = copyOf(t, model.dir)
  writeBin(dir, stateDict(model.tensors), model.tensors)
  return logits(dir)
}

const rename = (to: (name: string) => string) => (tensors: readonly PlainTensor[]) => stateDict(tensors, to)
const optimizer = dict(['state', bytes('}(', int(0), dict(['exp_avg', tensor('0', [1])]), 'u')], ['param_groups', bytes(']')])
const withValue = (pickled: (key: string, shape: readonly number[]) => Buffer) => (tensors: readonly PlainTensor[]) =>
  stateDict(tensors.map((one): BinTensor => ({ ...one, pickled: (key) => pickled(key, one.shape) })))

/** Objects that torch.save was given, and that hold the same weights. */
const READ: readonly (readonly [string, (tensors: readonly PlainTensor[]) => Buffer])[] = [
  [
    "{'model': ...} of nanoGPT, with an optimizer and a loss",
    (tensors) =>
      dict(
        ['model', stateDict(tensors)],
        ['optimizer', optimizer],
        ['model_args', dict(['n_layer', int(1)])],
        ['iter_num', int(5)],
        ['best_val_loss', tensor('0', [1])],
        ['config', dict(['out_dir', text('out')])],
      ),
  ],
  ["{'state_dict': ...} of Lightning", (tensors) => dict(['epoch', int(1)], ['state_dict', stateDict(tensors)])],
  ["{'model_state_dict': ...}", (tensors) => dict(['model_state_dict', stateDict(tensors)], ['loss', numpyScalar])],
  ["{'state_dict': {'model': ...}}", (tensors) => dict(['state_dict', dict(['model', stateDict(tensors)])])],
  ['names with _orig_mod.', rename((name) => `_orig_mod.${name}`)],
  ['names with module.', rename((name) => `module.${name}`)],
  ['names with module._orig_mod.', rename((name) => `module._orig_mod.${name}`)],
  ['names with _orig_mod.module.', rename((name) => `_orig_mod.module.${name}`)],
  ['names with _orig_mod. inside, of layers that were compiled', rename((name) => name.replace('h.0.', 'h.0._orig_mod.'))],
  ["{'model': ...} with names of torch.compile", (tensors) => dict(['model', stateDict(tensors, (name) => `_orig_mod.${name}`)])],
  ['Parameters', withValue((key, shape) => call(global('torch._utils', '_rebuild_parameter'), tensor(key, shape), TRUE, NONE))],
  ['Parameters with attributes', withValue((key, shape) => parameterWithState(tensor(key, shape)))],
  ['nn.Buffer', withValue(buffer)],
  ['a numpy scalar beside the weights', (tensors) => bytes(stateDict(tensors), '(', text('best_val_loss'), numpyScalar, text('step'), int(5), 'u')],
  ['an empty seventh argument', withValue((key, shape) => tensor(key, shape, 'FloatStorage', [bytes('}')]))],
  ['a negative bit that is not set', withValue((key, shape) => tensor(key, shape, 'FloatStorage', [dict(['neg', FALSE])]))],
]

for (const [what, object] of READ) {
  test(`read: ${what}`, async (t) => {
    const model = await empty(t)
    const expected = await plain(t, model)
    writeBin(model.dir, object(model.tensors), model.tensors)
    t.deepEqual(await logits(model.dir), expected)
  })
}

test('buffers that no model needs are skipped, and inspect lists them', async (t) => {
  const model = await empty(t)
  const expected = await plain(t, model)
  const extra: readonly (readonly [string, Buffer])[] = [
    ['transformer.h.0.attn.rotary_emb.inv_freq', tensor('0', [1])],
    ['transformer.h.0.attn.bias', tensor('0', [1, 1, 2, 2], 'BoolStorage')],
    ['transformer.h.0.attn.masked_bias', tensor('0', [])],
    ['freqs_cis', tensor('0', [1], 'ComplexFloatStorage')],
    ['module.position_ids', tensor('0', [1], 'LongStorage')],
    ['num_batches_tracked', tensor('0', [], 'LongStorage')],
  ]
  const items = extra.flatMap(([name, value]) => [text(name), value])
  writeBin(model.dir, bytes(stateDict(model.tensors), '(', ...items, text('iter_num'), int(3), 'u'), model.tensors)
  t.deepEqual(await logits(model.dir), expected)
  const inspection = await inspect(model.dir)
  t.deepEqual([...inspection.skipped].sort(), [
    'freqs_cis (ComplexFloatStorage [1])',
    'iter_num (number [])',
    'num_batches_tracked (LongStorage [])',
    'position_ids (LongStorage [1])',
    'transformer.h.0.attn.bias (BoolStorage [1, 1, 2, 2])',
    'transformer.h.0.attn.masked_bias (FloatStorage [])',
    'transformer.h.0.attn.rotary_emb.inv_freq (FloatStorage [1])',
  ])
  t.regex(formatInspection(inspection), /not loaded[\s\S]*freqs_cis/)
})

test('a bias and an unknown tensor are no buffers', async (t) => {
  const model = await empty(t)
  for (const name of ['transformer.h.0.attn.bias', 'transformer.h.0.attn.sink']) {
    writeBin(model.dir, bytes(stateDict(model.tensors), '(', text(name), tensor('0', [2]), 'u'), model.tensors)
    const error = await t.throwsAsync(Engine.load(model.dir), { instanceOf: CheckpointError })
    t.is((error as CheckpointError).code, 'TENSOR_SURPLUS')
    t.true(error?.message.includes(name))
  }
})

const subclass = (type: Buffer) =>
  call(
    global('torch._tensor', '_rebuild_from_type_v2'),
    global('torch._utils', '_rebuild_wrapper_subclass'),
    type,
    tuple(type, tuple(int(1)), tuple(int(1)), int(0)),
    dict(['_local_tensor', tensor('0', [1])]),
  )
const numpyCast = (name: string) => call(global('torch._utils', '_rebuild_tensor_v3'), ...[text('0'), global('torch', name)])

/** Values that the final norm is pickled as, or whole files; the code, and what the message must say. */
const REFUSED: readonly (readonly [string, ErrorCode, RegExp, (tensors: readonly PlainTensor[]) => Buffer])[] = [
  [
    'a negative bit',
    'CHECKPOINT_INVALID',
    /bit neg set.*resolve_neg\(\)/,
    withValue((key, shape) => tensor(key, shape, 'FloatStorage', [dict(['neg', TRUE])])),
  ],
  ['another bit', 'CHECKPOINT_INVALID', /bit conj set/, withValue((key, shape) => tensor(key, shape, 'FloatStorage', [dict(['conj', TRUE])]))],
  [
    'a seventh argument that is no dict',
    'CHECKPOINT_INVALID',
    /argument that is not known/,
    withValue((key, shape) => tensor(key, shape, 'FloatStorage', [int(1)])),
  ],
  [
    'an eighth argument',
    'CHECKPOINT_INVALID',
    /argument that is not known/,
    withValue((key, shape) => tensor(key, shape, 'FloatStorage', [NONE, int(1)])),
  ],
  ['float8', 'TENSOR_DTYPE', /float8_e4m3fn.*to\(torch\.bfloat16\)/, () => dict(['layernorm.weight', numpyCast('float8_e4m3fn')])],
  [
    'a DTensor',
    'CHECKPOINT_INVALID',
    /DTensor.*full_tensor\(\)/,
    () => dict(['layernorm.weight', subclass(global('torch.distributed.tensor', 'DTensor'))]),
  ],
  ['a quantized subclass', 'TENSOR_DTYPE', /subclass.*dequantize\(\)/, () => dict(['layernorm.weight', subclass(global('torchao.dtypes', 'X'))])],
  ['a quantized tensor', 'TENSOR_DTYPE', /quantized.*dequantize\(\)/, () => call(global('torch._utils', '_rebuild_qtensor'))],
  [
    'a module of torch.nn',
    'CHECKPOINT_UNSAFE',
    /pickled module.*state_dict\(\)/,
    () => bytes(global('torch.nn.modules.container', 'Sequential'), ')\x81'),
  ],
  ['a module of the script', 'CHECKPOINT_UNSAFE', /__main__\.GPT.*state_dict\(\)/, () => bytes(global('__main__', 'GPT'), ')\x81')],
  [
    'a module of a package of its own',
    'CHECKPOINT_UNSAFE',
    /model\.GPT.*state_dict\(\)/,
    () => bytes(global('model', 'GPT'), ')\x81', dict(['_parameters', dict()]), 'b'),
  ],
  [
    'a configuration object beside the weights',
    'CHECKPOINT_UNSAFE',
    /model\.GPTConfig.*\['model'\]/,
    () => dict(['config', bytes(global('model', 'GPTConfig'), ')\x81')]),
  ],
  [
    'a class that runs programs',
    'CHECKPOINT_UNSAFE',
    /subprocess\.Popen.*Do not use this file/,
    () => call(global('subprocess', 'Popen'), text('true')),
  ],
  [
    'arguments beside the weights',
    'CHECKPOINT_UNSAFE',
    /argparse\.Namespace.*\['model'\]/,
    () => dict(['args', bytes(global('argparse', 'Namespace'), ')\x81')]),
  ],
  ['a function of the system', 'CHECKPOINT_UNSAFE', /os\.system.*Do not use this file/, () => call(global('os', 'system'), text('true'))],
  [
    'two state dicts',
    'CHECKPOINT_INVALID',
    /several state dicts: \['model'\], \['net'\]/,
    (all) => dict(['model', stateDict(all)], ['net', stateDict(all)]),
  ],
  ['no tensors', 'CHECKPOINT_INVALID', /holds no tensors.*"args", "step"/, () => dict(['args', dict(['a', int(1)])], ['step', int(2)])],
  [
    'a tensor twice under different prefixes',
    'CHECKPOINT_INVALID',
    /two tensors are layernorm\.weight/,
    (all) => bytes(stateDict(all), '(', text('module.layernorm.weight'), tensor('0', [16]), 'u'),
  ],
]

for (const [what, code, message, object] of REFUSED) {
  test(`refused: ${what}`, async (t) => {
    const model = await empty(t)
    writeBin(model.dir, object(model.tensors), model.tensors)
    const error = await t.throwsAsync(Engine.load(model.dir), { instanceOf: CheckpointError, message })
    t.is((error as CheckpointError).code, code)
  })
}

/** Files that are no zip, and what the message must say. */
const OTHER: readonly (readonly [string, Buffer, RegExp])[] = [
  [
    'a legacy file of torch',
    Buffer.from('80028a0a6cfc9c46f9206aa850192e80024de9032e', 'hex'),
    /legacy.*torch\.save\(torch\.load\('pytorch_model\.bin'/,
  ],
  ['a tar', Buffer.concat([Buffer.alloc(257), Buffer.from('ustar'), Buffer.alloc(300)]), /is a tar/],
  ['a bare pickle', Buffer.from('\x80\x04}.', 'latin1'), /bare pickle/],
  ['GGUF', Buffer.from('GGUF\x03\0\0\0'), /GGUF/],
  ['a pointer of Git LFS', Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'), /git lfs pull/],
  ['a web page', Buffer.from('<!DOCTYPE html><html></html>'), /web page/],
]
for (const [what, content, message] of OTHER) {
  test(`refused: ${what} named pytorch_model.bin`, async (t) => {
    const { dir } = await empty(t)
    writeFileSync(join(dir, 'pytorch_model.bin'), content)
    const error = await t.throwsAsync(Engine.load(dir), { instanceOf: CheckpointError, message })
    t.is((error as CheckpointError).code, 'CHECKPOINT_INVALID')
  })
}
