import test from 'ava'
import { CheckpointError } from '../../src/index.js'
import { unpickleStateDict } from '../../src/model/checkpoint/unpickler.js'
import { full } from '../support/tier.js'

const text = (s: string) => Buffer.concat([Buffer.from([0x58]), u32(Buffer.byteLength(s)), Buffer.from(s)])
const u32 = (n: number) => {
  const b = Buffer.alloc(4)
  b.writeUInt32LE(n)
  return b
}
const global = (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`)
const pickle = (...parts: (Buffer | string)[]) =>
  Buffer.concat([Buffer.from([0x80, 2]), ...parts.map((p) => (typeof p === 'string' ? Buffer.from(p, 'latin1') : p)), Buffer.from('.')])

/** {name: _rebuild_tensor_v2(FloatStorage '0' of n, offset 0, (n,), (1,))} */
function stateDict(storage: Buffer, rebuild: Buffer): Buffer {
  const persistent = ['(', text('storage'), storage, text('0'), text('cpu'), 'K\x06', 't', 'Q']
  return pickle(
    '}',
    '(',
    text('w'),
    rebuild,
    '(',
    ...persistent,
    'K\x00',
    'K\x06',
    '\x85',
    'K\x01',
    '\x85',
    '\x89',
    global('collections', 'OrderedDict'),
    ')',
    'R',
    't',
    'R',
    'u',
  )
}

const rebuild = global('torch._utils', '_rebuild_tensor_v2')

test('a state dict is read', (t) => {
  const tensors = unpickleStateDict(stateDict(global('torch', 'FloatStorage'), rebuild), 'x.bin')
  t.deepEqual([...tensors.keys()], ['w'])
  t.like(tensors.get('w'), { offset: 0, shape: [6], strides: [1], storage: { type: 'FloatStorage', key: '0', elements: 6 } })
})

for (const [module, name] of [
  ['os', 'system'],
  ['builtins', 'eval'],
  ['torch', 'load'],
  ['collections', 'defaultdict'],
  ['posix', 'system'],
] as const) {
  test(`a pickle that names ${module}.${name} is refused by that name`, (t) => {
    const error = t.throws(() => unpickleStateDict(pickle(global(module, name), text('echo owned'), '\x85', 'R'), 'x.bin'), {
      instanceOf: CheckpointError,
    })
    t.is((error as CheckpointError).code, 'CHECKPOINT_UNSAFE')
    t.true(error?.message.includes(`${module}.${name}`))
  })
}

test('STACK_GLOBAL, INST, OBJ and NEWOBJ do not bypass the allow list', (t) => {
  for (const bytes of [
    pickle(text('os'), text('system'), '\x93', text('x'), '\x85', 'R'),
    pickle('(', text('x'), 'ios\nsystem\n'),
    pickle(global('collections', 'OrderedDict'), ')', '\x81'),
    pickle('(', global('collections', 'OrderedDict'), 'o'),
  ]) {
    const error = t.throws(() => unpickleStateDict(bytes, 'x.bin'), { instanceOf: CheckpointError })
    t.is((error as CheckpointError).code, 'CHECKPOINT_UNSAFE')
  }
})

test('a pickle cut anywhere, or with any byte changed, is a typed error or a dict', (t) => {
  const whole = stateDict(global('torch', 'FloatStorage'), rebuild)
  for (let n = 0; n < whole.length; n++) t.throws(() => unpickleStateDict(whole.subarray(0, n), 'x.bin'), { instanceOf: CheckpointError })
  let refused = 0
  for (let i = 0; i < whole.length; i++) {
    for (const value of [0, 0x28, 0x2e, 0x52, 0x74, 0x75, 0xff]) {
      const changed = Buffer.from(whole)
      changed[i] = value
      try {
        unpickleStateDict(changed, 'x.bin')
      } catch (error) {
        if (!(error instanceof CheckpointError)) throw error
        refused++
      }
    }
  }
  t.true(refused > whole.length, `${refused} of ${7 * whole.length} refused`)
})

full('a value nested half a million deep, or in itself, is a typed error', (t) => {
  const deep = pickle('}', '(', ')', '\x85'.repeat(500_000), text('x'), 'u')
  t.throws(() => unpickleStateDict(deep, 'x.bin'), { instanceOf: CheckpointError })
  const cyclic = pickle('}', '(', ']', 'q\x00', 'h\x00', 'a', text('x'), 'u')
  t.throws(() => unpickleStateDict(cyclic, 'x.bin'), { instanceOf: CheckpointError })
  t.throws(() => unpickleStateDict(pickle(')', '\x85'.repeat(500_000), text('x'), '\x93'), 'x.bin'), { instanceOf: CheckpointError })
})
