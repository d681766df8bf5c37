// Files that are missing, damaged or hostile: each gets its own code, from the API and from the command.
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { checkMemory, memoryNeed } from '../../src/engine/memory.js'
import { openModel, planRun } from '../../src/engine/model.js'
import { Engine, type ErrorCode, MemoryError, TetradError } from '../../src/index.js'
import { checkOptions, resolveFor } from '../../src/options/engine-options.js'
import { layoutModel } from '../../workers/layout/model-layout.js'
import { FIXTURES, ROOT, TINY } from '../support/fixtures.js'
import { copyOf, editConfig, readTensors, safetensors, temporary } from '../support/models.js'
import { type SavedTensor, torchEntries, zip } from '../support/torch-file.js'

const run = promisify(execFile)
const MODEL = `${FIXTURES}golden/mlra_4`
const SAFE = `${FIXTURES}golden/mlra_4_f16_safetensors`
const SHARDED = `${FIXTURES}golden/mlra_4_bf16_sharded`

type Spoil = (dir: string) => void | string | Promise<void>

const bin = (dir: string) => join(dir, 'pytorch_model.bin')
const floats = (n: number) => new Uint8Array(new Float32Array(n).buffer)
const one: SavedTensor = { name: 'w', storage: 'FloatStorage', key: '0', elements: 4, shape: [4] }
const torch = torchEntries

const evil = Buffer.concat([
  Buffer.from([0x80, 2]),
  Buffer.from('cos\nsystem\n'),
  Buffer.from('X\x0e\x00\x00\x00touch /tmp/own'),
  Buffer.from('\x85R.', 'latin1'),
])

/** What is done to a copy of which model, and what must come of it. */
const CASES: readonly (readonly [string, string, ErrorCode, RegExp, Spoil])[] = [
  ['no directory', MODEL, 'MODEL_NOT_FOUND', /there is no directory/, (dir) => rmSync(dir, { recursive: true })],
  ['no weights', MODEL, 'MODEL_NOT_FOUND', /holds no weights/, (dir) => rmSync(bin(dir))],
  ['no config', MODEL, 'MODEL_NOT_FOUND', /config\.json/, (dir) => rmSync(join(dir, 'config.json'))],
  ['a file instead of a directory', MODEL, 'MODEL_NOT_FOUND', /is a file/, () => join(MODEL, 'config.json')],
  ['garbage config', MODEL, 'CONFIG_INVALID', /not JSON/, (dir) => writeFileSync(join(dir, 'config.json'), '{"n_layer": 2,')],
  ['a list as config', MODEL, 'CONFIG_INVALID', /not an object/, (dir) => writeFileSync(join(dir, 'config.json'), '[1]')],
  ['a missing field', MODEL, 'CONFIG_INVALID', /n_head/, (dir) => editConfig(dir, { n_head: undefined })],
  ['2^31 heads', MODEL, 'CONFIG_INVALID', /n_head is out of range/, (dir) => editConfig(dir, { n_head: 2 ** 31 })],
  ['negative layers', MODEL, 'CONFIG_INVALID', /n_layer/, (dir) => editConfig(dir, { n_layer: -1 })],
  ['a text as width', MODEL, 'CONFIG_INVALID', /n_embd/, (dir) => editConfig(dir, { n_embd: '64' })],
  ['kv_lora_rank 46', MODEL, 'CONFIG_INVALID', /kv_lora_rank cannot be cut into 4/, (dir) => editConfig(dir, { kv_lora_rank: 46 })],
  ['an odd rope width', MODEL, 'CONFIG_INVALID', /qk_rope_head_dim is odd/, (dir) => editConfig(dir, { qk_rope_head_dim: 7 })],
  ['biases', MODEL, 'CONFIG_INVALID', /bias is not supported/, (dir) => editConfig(dir, { bias: true })],
  ['an end of text beyond the vocabulary', MODEL, 'CONFIG_INVALID', /eos_token_id/, (dir) => editConfig(dir, { eos_token_id: 160 })],
  ['more layers than tensors', MODEL, 'TENSOR_MISSING', /transformer\.h\.2\./, (dir) => editConfig(dir, { n_layer: 3 })],
  ['fewer layers than tensors', MODEL, 'TENSOR_SURPLUS', /tensors that its variant does not/, (dir) => editConfig(dir, { n_layer: 1 })],
  ['another width than the tensors', MODEL, 'TENSOR_SHAPE', /another shape/, (dir) => editConfig(dir, { intermediate_size: 95 })],
  ['a head count that fits no variant', MODEL, 'VARIANT_UNKNOWN', /fits no variant/, (dir) => editConfig(dir, { n_head: 5 })],
  ['an empty .bin', MODEL, 'CHECKPOINT_INVALID', /not a readable zip/, (dir) => writeFileSync(bin(dir), '')],
  ['a truncated .bin', MODEL, 'CHECKPOINT_INVALID', /not a readable zip/, (dir) => truncateSync(bin(dir), 300_000)],
  ['a garbage .bin', MODEL, 'CHECKPOINT_INVALID', /not a readable zip/, (dir) => writeFileSync(bin(dir), Buffer.alloc(70_000, 'PK\x05\x06'))],
  [
    'a token file as .bin',
    MODEL,
    'CHECKPOINT_INVALID',
    /file of tokens/,
    (dir) => writeFileSync(bin(dir), Buffer.from(Uint16Array.from({ length: 9000 }, (_, i) => i).buffer)),
  ],
  ['a zip without data.pkl', MODEL, 'CHECKPOINT_INVALID', /no data\.pkl/, (dir) => writeFileSync(bin(dir), zip([{ name: 'm/x', data: floats(1) }]))],
  [
    'a pickle that calls os.system',
    MODEL,
    'CHECKPOINT_UNSAFE',
    /os\.system/,
    (dir) => writeFileSync(bin(dir), zip([{ name: 'm/data.pkl', data: evil }])),
  ],
  [
    'a compressed entry',
    MODEL,
    'CHECKPOINT_INVALID',
    /is compressed/,
    (dir) => writeFileSync(bin(dir), zip([{ name: 'm/data.pkl', data: evil, method: 8 }])),
  ],
  [
    'an entry that climbs out',
    MODEL,
    'CHECKPOINT_INVALID',
    /not a readable zip/,
    (dir) => writeFileSync(bin(dir), zip([{ name: '../data.pkl', data: evil }])),
  ],
  [
    'an entry with another local name',
    MODEL,
    'CHECKPOINT_INVALID',
    /another name/,
    (dir) => writeFileSync(bin(dir), zip([{ name: 'm/data.pkl', data: evil, localName: 'm/data.pkx' }])),
  ],
  [
    'an entry that lies about its size',
    MODEL,
    'CHECKPOINT_INVALID',
    /lies about its size/,
    (dir) => writeFileSync(bin(dir), zip([{ name: 'm/data.pkl', data: evil, localSize: 3 }])),
  ],
  [
    'an entry twice',
    MODEL,
    'CHECKPOINT_INVALID',
    /twice/,
    (dir) =>
      writeFileSync(
        bin(dir),
        zip([
          { name: 'm/data.pkl', data: evil },
          { name: 'm/data.pkl', data: evil },
        ]),
      ),
  ],
  ['entries that overlap', MODEL, 'CHECKPOINT_INVALID', /overlap/, (dir) => writeFileSync(bin(dir), overlapping())],
  [
    'a storage that is missing',
    MODEL,
    'CHECKPOINT_INVALID',
    /storage of w is missing/,
    (dir) => writeFileSync(bin(dir), zip(torch([one], new Map()))),
  ],
  [
    'a storage that is too short',
    MODEL,
    'CHECKPOINT_INVALID',
    /reaches past its storage/,
    (dir) => writeFileSync(bin(dir), zip(torch([one], new Map([['0', floats(3)]])))),
  ],
  [
    'strides past the storage',
    MODEL,
    'CHECKPOINT_INVALID',
    /reaches past its storage/,
    (dir) => writeFileSync(bin(dir), zip(torch([{ ...one, strides: [2] }], new Map([['0', floats(4)]])))),
  ],
  [
    'an integer tensor',
    MODEL,
    'TENSOR_DTYPE',
    /LongStorage/,
    (dir) => writeFileSync(bin(dir), zip(torch([{ ...one, storage: 'LongStorage' }], new Map([['0', floats(8)]])))),
  ],
  [
    'big-endian data',
    MODEL,
    'CHECKPOINT_INVALID',
    /byte order/,
    (dir) =>
      writeFileSync(
        bin(dir),
        zip([
          { name: 'm/data.pkl', data: evil },
          { name: 'm/byteorder', data: Buffer.from('big') },
        ]),
      ),
  ],
  ['a NaN weight', MODEL, 'TENSOR_NON_FINITE', /element 5/, (dir) => spoilWeight(dir, Number.NaN)],
  ['an infinite weight', MODEL, 'TENSOR_NON_FINITE', /element 5/, (dir) => spoilWeight(dir, Number.NEGATIVE_INFINITY)],
  [
    'a missing tensor',
    MODEL,
    'TENSOR_MISSING',
    /layernorm\.weight/,
    (dir) => rewrite(dir, (all) => all.filter((x) => x.name !== 'layernorm.weight')),
  ],
  [
    'a surplus tensor',
    MODEL,
    'TENSOR_SURPLUS',
    /attn\.extra/,
    (dir) => rewrite(dir, (all) => [...all, { name: 'transformer.h.0.attn.extra', shape: [1], values: new Float32Array(1) }]),
  ],
  [
    'garbage safetensors',
    SAFE,
    'CHECKPOINT_INVALID',
    /header claims/,
    (dir) => writeFileSync(join(dir, 'model.safetensors'), Buffer.alloc(500, 0xff)),
  ],
  ['truncated safetensors', SAFE, 'CHECKPOINT_INVALID', /claims bytes/, (dir) => truncateSync(join(dir, 'model.safetensors'), 150_000)],
  ['safetensors of 5 bytes', SAFE, 'CHECKPOINT_INVALID', /shorter than a header/, (dir) => truncateSync(join(dir, 'model.safetensors'), 5)],
  ['a safetensors header beyond 100 MB', SAFE, 'CHECKPOINT_INVALID', /claims 100000001 bytes/, (dir) => sparseHeader(dir, 100_000_001, 200_000_000)],
  ['a safetensors header that is no JSON', SAFE, 'CHECKPOINT_INVALID', /not JSON/, (dir) => sparseHeader(dir, 100, 1000)],
  [
    'safetensors that overlap',
    MODEL,
    'CHECKPOINT_INVALID',
    /overlaps/,
    (dir) =>
      rewrite(
        dir,
        (all) => all,
        (header) => shift(header, -8),
      ),
  ],
  [
    'safetensors with a hole',
    MODEL,
    'CHECKPOINT_INVALID',
    /hole/,
    (dir) =>
      rewrite(
        dir,
        (all) => all,
        (header) => shift(header, 8),
        8,
      ),
  ],
  [
    'safetensors with bytes left over',
    MODEL,
    'CHECKPOINT_INVALID',
    /end 8 bytes before the end/,
    (dir) =>
      rewrite(
        dir,
        (all) => all,
        () => {},
        8,
      ),
  ],
  [
    'safetensors of integers',
    MODEL,
    'TENSOR_DTYPE',
    /I64/,
    (dir) =>
      rewrite(
        dir,
        (all) => all,
        (header) => Object.assign(Object.values(header)[0] as object, { dtype: 'I64' }),
      ),
  ],
  [
    'a negative offset',
    MODEL,
    'CHECKPOINT_INVALID',
    /malformed/,
    (dir) =>
      rewrite(
        dir,
        (all) => all,
        (header) => Object.assign(Object.values(header)[0] as object, { data_offsets: [-8, 0] }),
      ),
  ],
  [
    'an index that climbs out',
    SHARDED,
    'CHECKPOINT_INVALID',
    /same directory/,
    (dir) => writeFileSync(join(dir, 'pytorch_model.bin.index.json'), '{"weight_map":{"a":"../x.bin"}}'),
  ],
  [
    'an index of numbers',
    SHARDED,
    'CHECKPOINT_INVALID',
    /it names 3/,
    (dir) => writeFileSync(join(dir, 'pytorch_model.bin.index.json'), '{"weight_map":{"a":3}}'),
  ],
  [
    'an index whose name has a toString of its own',
    SHARDED,
    'CHECKPOINT_INVALID',
    /it names an object/,
    (dir) => writeFileSync(join(dir, 'pytorch_model.bin.index.json'), '{"weight_map":{"a":{"toString":"c"}}}'),
  ],
  [
    'a dtype with a toString of its own',
    MODEL,
    'TENSOR_DTYPE',
    /an object/,
    (dir) =>
      rewrite(
        dir,
        (all) => all,
        (header) => Object.assign(Object.values(header)[0] as object, { dtype: { toString: 1 } }),
      ),
  ],
  ['a garbage index', SHARDED, 'CHECKPOINT_INVALID', /not JSON/, (dir) => writeFileSync(join(dir, 'pytorch_model.bin.index.json'), 'x')],
  ['an empty index', SHARDED, 'CHECKPOINT_INVALID', /empty/, (dir) => writeFileSync(join(dir, 'pytorch_model.bin.index.json'), '{"weight_map":{}}')],
  ['a part that is missing', SHARDED, 'MODEL_NOT_FOUND', /00002-of-00003/, (dir) => rmSync(join(dir, 'pytorch_model-00002-of-00003.bin'))],
  [
    'a tensor in two parts',
    SHARDED,
    'CHECKPOINT_INVALID',
    /is in pytorch_model-00002-of-00003\.bin, which does not hold it/,
    (dir) => writeFileSync(join(dir, 'pytorch_model-00002-of-00003.bin'), readFileSync(join(dir, 'pytorch_model-00001-of-00003.bin'))),
  ],
  ['a garbage tokenizer', MODEL, 'TOKENIZER_INVALID', /cannot be used/, (dir) => writeFileSync(join(dir, 'tokenizer.json'), '{"model":')],
  [
    'an added token with an absurd id',
    MODEL,
    'TOKENIZER_INVALID',
    /id 2147483648/,
    (dir) =>
      writeFileSync(join(dir, 'tokenizer.json'), '{"added_tokens":[{"id":2147483648,"content":"x"}],"model":{"type":"BPE","vocab":{},"merges":[]}}'),
  ],
  ['an empty tokenizer', MODEL, 'TOKENIZER_INVALID', /cannot be used/, (dir) => writeFileSync(join(dir, 'tokenizer.json'), '{}')],
  [
    "another model's tokenizer",
    MODEL,
    'TOKENIZER_INVALID',
    /cannot be used/,
    (dir) => writeFileSync(join(dir, 'tokenizer.json'), readFileSync(join(TINY, 'tokenizer.json'))),
  ],
  [
    'a directory as weights',
    MODEL,
    'CHECKPOINT_INVALID',
    /not a readable zip/,
    (dir) => {
      rmSync(bin(dir))
      mkdirSync(bin(dir))
    },
  ],
]

/** Two directory entries for the same bytes: the second's header lies inside the first's data. */
function overlapping(): Buffer {
  const inner = zip([{ name: 'm/x', data: floats(2) }])
  const header = inner.subarray(0, 30 + 3 + 8)
  const outer: { name: string; data: Uint8Array } = { name: 'm/data.pkl', data: header }
  const whole = zip([outer, { name: 'm/x', data: floats(2) }])
  // The second directory entry's offset of its local header is moved into the first entry's data.
  const directory = whole.lastIndexOf(Buffer.from([0x50, 0x4b, 1, 2]))
  whole.writeUInt32LE(30 + 'm/data.pkl'.length, directory + 42)
  return whole
}

async function rewrite(
  dir: string,
  change: (all: Awaited<ReturnType<typeof readTensors>>) => Awaited<ReturnType<typeof readTensors>>,
  header: (header: Record<string, unknown>) => void = () => {},
  extra = 0,
): Promise<void> {
  const all = change(await readTensors(MODEL))
  writeFileSync(join(dir, 'model.safetensors'), Buffer.concat([safetensors(all, header), Buffer.alloc(extra)]))
}

function shift(header: Record<string, unknown>, by: number): void {
  const last = Object.values(header).at(-1) as { data_offsets: [number, number] }
  last.data_offsets = [last.data_offsets[0] + by, last.data_offsets[1] + by]
}

function spoilWeight(dir: string, value: number): Promise<void> {
  return rewrite(dir, (all) => {
    for (const { name, values } of all) if (name === 'transformer.h.1.mlp.c_fc1.weight') values[5] = value
    return all
  })
}

function sparseHeader(dir: string, claimed: number, size: number): void {
  const path = join(dir, 'model.safetensors')
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(claimed))
  writeFileSync(path, prefix)
  truncateSync(path, size)
}

for (const [what, model, code, message, spoil] of CASES) {
  test(`${what}: ${code}`, async (t) => {
    const copy = copyOf(t, model)
    const dir = (await spoil(copy)) ?? copy
    const error = (await t.throwsAsync(Engine.load(dir as string, { ranks: 1 }), { instanceOf: TetradError })) as TetradError
    t.is(error.code, code)
    t.regex(`${error.message} ${error.remedy}`, message)
    t.true(error.remedy.length > 10)
  })
}

test('no function that a pickle names runs, and a running engine goes on', async (t) => {
  const engine = await Engine.load(MODEL, { ranks: 2 })
  const before = await engine.generate([23], { maxTokens: 5 })
  const dir = copyOf(t, MODEL)
  const marker = join(dir, 'marker')
  const call = Buffer.from(`touch ${marker}`)
  const pickle = Buffer.concat([
    Buffer.from('\x80\x02cos\nsystem\nX', 'latin1'),
    Buffer.from(Uint32Array.of(call.length).buffer),
    call,
    Buffer.from('\x85R.', 'latin1'),
  ])
  writeFileSync(bin(dir), zip([{ name: 'm/data.pkl', data: pickle }]))
  await t.throwsAsync(Engine.load(dir), { message: /os\.system/ })
  t.throws(() => readFileSync(marker))
  t.deepEqual((await engine.generate([23], { maxTokens: 5 })).tokens, before.tokens)
  await engine.close()
})

test('a file that changes while it is being loaded is noticed', async (t) => {
  const dir = copyOf(t, TINY)
  const part = join(dir, 'pytorch_model-00003-of-00003.bin')
  let touched = false
  const error = (await t.throwsAsync(
    Engine.load(dir, {
      ranks: 1,
      onProgress: () => {
        if (!touched) utimesSync(part, new Date(), new Date(2001, 1, 1))
        touched = true
      },
    }),
    { instanceOf: TetradError },
  )) as TetradError
  t.is(error.code, 'CHECKPOINT_CHANGED')
})

test('too little memory fails before loading, with the numbers and what would fit', async (t) => {
  const model = await openModel(MODEL)
  const options = resolveFor('wasm', checkOptions({ ranks: 1 }))
  const plan = planRun(model, options, 2, 1 << 30)
  const layout = layoutModel(model.lowered.shape, plan)
  const { totalBytes } = memoryNeed(plan, layout)
  t.notThrows(() => checkMemory(model, options, plan, layout, totalBytes))
  const tight = t.throws(() => checkMemory(model, options, plan, layout, totalBytes - 1), { instanceOf: MemoryError })
  t.regex(tight?.message ?? '', /needs \d+ MiB .*This would fit: \{ .*bf16/)
  const large = resolveFor('wasm', checkOptions({ ranks: 1, cacheTokens: 1_000_000 }))
  const largePlan = planRun(model, large, 2, 1 << 30)
  const largeLayout = layoutModel(model.lowered.shape, largePlan)
  const cache = t.throws(() => checkMemory(model, large, largePlan, largeLayout, 100 << 20), { instanceOf: MemoryError })
  t.regex(cache?.message ?? '', /a cache of 1000000 tokens\)\. A cache of \d+ tokens would fit/)
  // int8 is offered before it is said that nothing fits.
  const remedies = Array.from({ length: 60 }, (_, i) => Math.floor(totalBytes * 0.97 ** i)).flatMap((available) => {
    try {
      checkMemory(model, options, plan, layout, available)
      return []
    } catch (error) {
      return [(error as MemoryError).remedy]
    }
  })
  t.true(remedies.some((remedy) => /This would fit: \{ .*weights: 'int8'/.test(remedy)))
  const none = t.throws(() => checkMemory(model, options, plan, layout, 1000), { instanceOf: MemoryError })
  t.regex(none?.message ?? '', /No choice of ranks or formats would fit/)
})

test('the command prints the same error on stderr, exits with 1 and shows no stack', async (t) => {
  const dir = temporary(t)
  const failure = (await t.throwsAsync(run(process.execPath, [`${ROOT}dist/src/cli.js`, 'generate', 'x', '--model', dir]))) as Error & {
    code: number
    stderr: string
    stdout: string
  }
  t.is(failure.code, 1)
  t.is(failure.stdout, '')
  t.regex(failure.stderr, /^error MODEL_NOT_FOUND: cannot read .*config\.json\n {2}expected: .*\n {2}actual: {3}.*\n {2}remedy: {3}.*\n$/)
})
