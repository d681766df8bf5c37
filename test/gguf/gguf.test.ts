// GGUF files: what a header says, and what is refused by its name. Files that run are in engine.test.ts.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { readerOf } from '../../src/model/checkpoint/byte-reader.js'
import { readEndIds } from '../../src/model/end-ids.js'
import { readModelConfig } from '../../src/model/model-config.js'
import { readGguf } from '../../src/model/model-files.js'
import { loadChatTemplate } from '../../src/tokenizer/chat-template.js'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.js'
import { inByteAlphabet } from '../../src/tokenizer/tokenizer-file.js'
import { FIXTURES } from '../support/fixtures.js'
import { asGguf, type GgufValue, ggufFile, type WrittenTensor } from '../support/gguf-file.js'
import { temporary } from '../support/models.js'

const { metadata, tensors } = await asGguf(`${FIXTURES}golden-hf/llama`, 'f32')

const read = (bytes: Buffer) => readGguf(readerOf(bytes), 'x.gguf')
const refused = (t: ExecutionContext, bytes: Buffer, code: string, message: RegExp) => t.throwsAsync(read(bytes), { code, message }, String(message))

function written(t: ExecutionContext, more: Readonly<Record<string, GgufValue>>, dir = temporary(t)): string {
  const path = join(dir, 'x.gguf')
  writeFileSync(path, ggufFile({ ...metadata, ...more }, tensors))
  return path
}

const KINDS = { control: 3, unused: 5 }
/** Bytes, some words, a pad, and the tokens that begin and end a text. */
const G = inByteAlphabet(Buffer.from(' '))
const words = ['th', 'the', `${G}t`, `${G}the`]
const bytes = Array.from({ length: 150 }, (_, byte) => inByteAlphabet([byte]))
const tokens = [...bytes, ...words, '<s>', '</s>', '<|end|>', '[PAD157]', '[PAD158]', '\ufeff']
const bytePairs: Record<string, GgufValue> = {
  'tokenizer.ggml.model': { text: 'gpt2' },
  'tokenizer.ggml.pre': { text: 'llama-bpe' },
  'tokenizer.ggml.tokens': { texts: tokens },
  'tokenizer.ggml.token_type': { i32s: tokens.map((token) => (/^<.+>$/.test(token) ? KINDS.control : token.startsWith('[PAD') ? KINDS.unused : 1)) },
  'tokenizer.ggml.merges': { texts: ['t h', 'th e', `${G} t`, `${G} the`] },
  'tokenizer.ggml.bos_token_id': { u32: 154 },
  'tokenizer.ggml.eos_token_id': { u32: 155 },
  'tokenizer.ggml.eot_token_id': { u32: 156 },
  'tokenizer.chat_template': { text: '{{ bos_token }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}' },
}

test('a vocabulary with merges becomes a tokenizer, with its template and all ids that end a text', async (t) => {
  const path = written(t, bytePairs)
  const tokenizer = (await loadTokenizer(path, 160)) as Tokenizer
  t.deepEqual(tokenizer.encode('the the<|end|>'), [151, 153, 156])
  t.is(tokenizer.decode([151, 153, 156]), 'the the')
  t.is(tokenizer.idOf('\ufeff'), 159, 'the first character of a token is kept')
  t.like(tokenizer, { addsBos: true, bosId: 154, endOfText: undefined })
  // A merge whose piece is no token, and that nothing builds on, changes no token; one that others build on is not known.
  const merges = ['t h', 'th e', `${G} t`, `${G} the`, 't t']
  const dead = (await loadTokenizer(written(t, { ...bytePairs, 'tokenizer.ggml.merges': { texts: merges } }), 160)) as Tokenizer
  t.deepEqual(dead.encode('tt the'), [116, 116, 153])
  const building = written(t, { ...bytePairs, 'tokenizer.ggml.merges': { texts: [...merges, 'tt h'] } })
  await t.throwsAsync(loadTokenizer(building, 160), { code: 'TOKENIZER_INVALID', message: /out of vocabulary/ })
  const config = await readModelConfig(path)
  t.deepEqual([...(await readEndIds(path, config, tokenizer))].sort(), [155, 156])
  const template = await loadChatTemplate(path)
  t.is(template.render([{ role: 'user', content: 'the' }]), '<s>the<|end|>')
  const plain = (await loadTokenizer(written(t, { ...bytePairs, 'tokenizer.ggml.add_bos_token': { bool: false } }), 160)) as Tokenizer
  t.false(plain.addsBos)
})

test('a vocabulary of SentencePiece becomes a tokenizer: the pair that scores highest is joined first, other characters are bytes', async (t) => {
  const byteTokens = Array.from({ length: 128 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
  const pieces = ['\u2581', 't', 'h', 'e', 'th', 'he', '\u2581t', 'the', '\u2581the']
  const all = ['<unk>', '<s>', '</s>', ...byteTokens, ...pieces]
  const sentencePiece: Record<string, GgufValue> = {
    'tokenizer.ggml.model': { text: 'llama' },
    'tokenizer.ggml.tokens': { texts: all },
    'tokenizer.ggml.scores': { f32s: all.map((token) => -['he', 'the', '\u2581the', 'th', '\u2581t'].indexOf(token)) },
    'tokenizer.ggml.token_type': { i32s: all.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 131 ? 6 : 1)) },
    'tokenizer.ggml.bos_token_id': { u32: 1 },
    'tokenizer.ggml.eos_token_id': { u32: 2 },
  }
  const tokenizer = (await loadTokenizer(written(t, sentencePiece), 160)) as Tokenizer
  const idOf = (token: string) => all.indexOf(token)
  t.deepEqual(tokenizer.encode('the the'), [idOf('\u2581the'), idOf('\u2581the')])
  t.deepEqual(tokenizer.encode('he!'), [idOf('\u2581'), idOf('he'), idOf('<0x21>')])
  t.is(tokenizer.decode(tokenizer.encode('the the!')), 'the the!')
  t.like(tokenizer, { addsBos: true, bosId: 1 })
  const path = written(t, { ...sentencePiece, 'tokenizer.ggml.add_space_prefix': { bool: false } })
  t.deepEqual(((await loadTokenizer(path, 160)) as Tokenizer).encode('the'), [idOf('the')])
})

test('a tokenizer that cannot be rebuilt is refused by its name; one beside the file takes its place', async (t) => {
  for (const [more, message] of [
    [{ 'tokenizer.ggml.model': { text: 'bert' } }, /tokenizer\.ggml\.model is "bert"[\s\S]*Put the model's original tokenizer\.json/],
    [{ 'tokenizer.ggml.pre': { text: 'falcon' } }, /tokenizer\.ggml\.pre is "falcon"/],
    [{ 'tokenizer.ggml.tokens': { texts: tokens.map((token) => (token === 'th' ? 'the' : token)) } }, /are both "the"/],
    [{ 'tokenizer.ggml.token_type': { i32s: [1, 2] } }, /token_type cannot be used/],
    [{ 'tokenizer.ggml.merges': { texts: ['th'] } }, /merges cannot be used/],
    [{ 'tokenizer.ggml.model': { text: 'llama' } }, /scores is missing/],
    [{ 'tokenizer.ggml.bos_token_id': { u32: 160 } }, /bos_token_id cannot be used/],
  ] as const satisfies readonly (readonly [Record<string, GgufValue>, RegExp])[]) {
    await t.throwsAsync(loadTokenizer(written(t, { ...bytePairs, ...more }), 160), { message }, String(message))
  }
  const dir = temporary(t)
  written(t, { ...bytePairs, 'tokenizer.ggml.model': { text: 'bert' } }, dir)
  writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify({ model: { type: 'BPE', vocab: { a: 0, b: 1 }, merges: [] } }))
  t.deepEqual((await loadTokenizer(dir, 160))?.encode('ab'), [0, 1])
  t.is(await loadTokenizer(written(t, {}), 160), undefined, 'no vocabulary')
})

test('what changes the arithmetic and is not known is refused by its name', async (t) => {
  const change = (more: Record<string, GgufValue>) => ggufFile({ ...metadata, ...more }, tensors)
  await refused(t, change({ 'general.architecture': { text: 'gemma3' } }), 'VARIANT_UNSUPPORTED', /architecture "gemma3".*llama, qwen2, qwen3/)
  await refused(t, change({ 'llama.expert_count': { u32: 8 } }), 'CONFIG_INVALID', /llama\.expert_count cannot be used/)
  await t.notThrowsAsync(read(change({ 'llama.expert_count': { u32: 0 } })))
  await refused(t, change({ 'llama.residual_scale': { f32: 0.5 } }), 'CONFIG_INVALID', /llama\.residual_scale/)
  await refused(t, change({ 'llama.anything': { u32: 1 } }), 'CONFIG_INVALID', /llama\.anything cannot be used.*may change what the model computes/)
  await refused(t, change({ 'llama.rope.scaling.type': { text: 'longrope' } }), 'CONFIG_INVALID', /rope\.scaling\.type.*none, linear or yarn/)
  await refused(t, change({ 'llama.rope.dimension_count': { u32: 8 } }), 'CONFIG_INVALID', /rope\.dimension_count.*16, the width of a head/)
  await refused(t, change({ 'split.count': { u32: 3 } }), 'CHECKPOINT_INVALID', /one of 3 parts.*llama-gguf-split --merge/)
  const { 'llama.block_count': _, ...without } = metadata
  await refused(t, ggufFile(without, tensors), 'CONFIG_INVALID', /llama\.block_count is missing/)
  const extra: WrittenTensor = { name: 'blk.0.attn_qkv.weight', shape: [2, 2], type: 'f32', values: new Float32Array(4) }
  await refused(t, ggufFile(metadata, [...tensors, extra]), 'TENSOR_SURPLUS', /attn_qkv\.weight is no tensor/)
  const bias: WrittenTensor = { name: 'blk.0.attn_q.bias', shape: [64], type: 'f32', values: new Float32Array(64) }
  await refused(t, ggufFile(metadata, [...tensors, bias]), 'TENSOR_SURPLUS', /attn_q\.bias/)
})

test('metadata becomes the fields of config.json', async (t) => {
  const yarn = await read(
    ggufFile(
      {
        ...metadata,
        'llama.rope.scaling.type': { text: 'yarn' },
        'llama.rope.scaling.factor': { f32: 4 },
        'llama.rope.scaling.original_context_length': { u32: 32 },
      },
      tensors.filter(({ name }) => name !== 'output.weight'),
    ),
  )
  t.like(yarn.config, {
    architectures: ['LlamaForCausalLM'],
    hidden_size: 64,
    num_key_value_heads: 2,
    head_dim: 16,
    vocab_size: 160,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    rope_parameters: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32, rope_theta: 10000 },
  })
  const linear = await read(ggufFile({ ...metadata, 'llama.rope.scale_linear': { f32: 2 } }, tensors))
  t.like(linear.config, { tie_word_embeddings: false, rope_parameters: { rope_type: 'linear', factor: 2 } })
})

test('damaged headers are refused before anything is allocated by them', async (t) => {
  const good = ggufFile(metadata, tensors)
  const change = (at: number, value: bigint) => {
    const copy = Buffer.from(good)
    copy.writeBigUInt64LE(value, at)
    return copy
  }
  await refused(t, Buffer.from('GGML'), 'CHECKPOINT_INVALID', /does not begin as one/)
  await refused(t, change(8, 1n << 60n), 'CHECKPOINT_INVALID', /claims 1152921504606846976 tensors/)
  await refused(t, change(16, 1n << 40n), 'CHECKPOINT_INVALID', /entries of metadata/)
  await refused(t, change(24, 1n << 63n), 'CHECKPOINT_INVALID', /cut short/)
  await refused(t, good.subarray(0, 500), 'CHECKPOINT_INVALID', /(claims|cut short)/)
  await refused(t, good.subarray(0, good.length - 100), 'CHECKPOINT_INVALID', /inside the file/)
  const version = Buffer.from(good)
  version.writeUInt32BE(3, 4)
  await refused(t, version, 'CHECKPOINT_INVALID', /byte order is not little/)
  const [first, ...others] = tensors as [WrittenTensor, ...WrittenTensor[]]
  await refused(t, ggufFile(metadata, [first, first, ...others]), 'CHECKPOINT_INVALID', /is there twice/)
  // The type of the first tensor: after its name, its rank and two dimensions.
  const at = good.indexOf(first.name) + first.name.length + 4 + 16
  const type = Buffer.from(good)
  type.writeUInt32LE(12, at)
  await refused(t, type, 'TENSOR_DTYPE', /has the type Q4_K.*F32, F16, Q4_0, Q8_0, BF16.*llama-quantize/)
  const overlap = Buffer.from(good)
  overlap.writeBigUInt64LE(32n, at + 4)
  await refused(t, overlap, 'CHECKPOINT_INVALID', /overlaps the tensor before it/)
})
