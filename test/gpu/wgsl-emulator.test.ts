// The emulator that tensor-core kernels are tested with: its own arithmetic, and that it notices what a device would not.
import test from 'ava'
import { emulate } from '../support/wgsl-emulator.js'

/** A kernel of 64 threads that writes an expression of its index `i` to out. */
const kernel = (body: string, declarations = '') => `enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix;
@group(0) @binding(0) var<storage, read_write> out : array<u32>;
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) i : u32, @builtin(workgroup_id) id : vec3<u32>) { ${body} }`

function outputs(body: string, declarations = '', descending = false): number[] {
  const out = new Uint32Array(64)
  emulate(kernel(body, declarations)).run({ 0: out }, [1, 1, 1], descending)
  return Array.from(out)
}

test('integers wrap, float32 rounds after every operation, and what is written to memory as float32 is read as bits', (t) => {
  t.is(outputs('out[i] = i - 2u;')[1], 0xffffffff)
  t.is(outputs('out[i] = (i + 0x10001u) * 0x10001u;')[0], 0x20001)
  t.is(outputs('out[i] = bitcast<u32>(16777216.0 + f32(i));')[1], outputs('out[i] = bitcast<u32>(16777216.0);')[0])
  t.is(outputs('out[i] = u32(i32(i) - 5 < 0);')[4], 1)
  t.is(outputs('var v = vec4<u32>(1u, 2u, 3u, 4u); let w = v; v.y = 9u; out[i] = v.y * 10u + w.y + v.zw.y;')[0], 96)
  t.is(outputs('out[i] = pack2x16float(vec2<f32>(1.0, -2.0));')[0], 0xc0003c00)
})

test('names in inner blocks hide outer ones, also in their own initial values', (t) => {
  t.is(outputs('let a = i + 1u; { let a = a * 2u; out[i] = a; } out[i] += a;')[3], 12)
  t.is(outputs('var sum = 0u; for (var k = 0u; k < 10u; k++) { if (k == 2u) { continue; } if (k == 5u) { break; } sum += k; } out[i] = sum;')[0], 8)
})

test('a barrier lets every invocation see what the others wrote; without one it depends on their order', (t) => {
  const shared = 'var<workgroup> s : array<u32, 64>;'
  const reversed = Array.from({ length: 64 }, (_, i) => 63 - i)
  for (const descending of [false, true]) t.deepEqual(outputs('s[i] = i; workgroupBarrier(); out[i] = s[63u - i];', shared, descending), reversed)
  t.notDeepEqual(outputs('s[i] = i; out[i] = s[63u - i];', shared), outputs('s[i] = i; out[i] = s[63u - i];', shared, true))
})

test('subgroup operations exchange values of 32 invocations', (t) => {
  t.deepEqual(
    outputs('out[i] = subgroupShuffleXor(i, 5u);'),
    Array.from({ length: 64 }, (_, i) => i ^ 5),
  )
  t.is(outputs('out[i] = u32(subgroupAdd(f32(i)));')[40], ((32 + 63) * 32) / 2)
})

test('subgroup matrices: a product of float16 matrices, both in either order, and a store', (t) => {
  const values = Array.from({ length: 256 }, (_, i) => (i * 37 + 11) % 8)
  const halves = new Uint16Array(512)
  // Of small integers.
  const half = (n: number) => [0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700][n] as number
  for (const [i, v] of values.entries()) {
    halves[i] = half(v)
    halves[256 + i] = half((v + i) % 8)
  }
  const right = values.map((v, i) => (v + i) % 8)
  for (const order of ['row_major', 'col_major'] as const) {
    const code = `enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix;
alias Left = subgroup_matrix_left<f16, 16, 16>; alias Right = subgroup_matrix_right<f16, 16, 16>; alias Sum = subgroup_matrix_result<f32, 16, 16>;
@group(0) @binding(0) var<storage, read> a : array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out : array<f32>;
@compute @workgroup_size(32)
fn main(@builtin(subgroup_id) sg : u32) {
  var c = Sum();
  let l = subgroupMatrixLoad<Left, row_major>(&a, sg, 2u);
  let r = subgroupMatrixLoad<Right, ${order}>(&a, 32u, 2u);
  c = subgroupMatrixMultiplyAccumulate(l, r, c);
  subgroupMatrixStore<row_major>(&out, 0u, c, 16u);
}`
    const out = new Float32Array(256)
    emulate(code).run({ 0: halves, 1: out }, [1, 1, 1])
    const at = (k: number, n: number) => right[order === 'row_major' ? k * 16 + n : n * 16 + k] as number
    const expected = Array.from({ length: 256 }, (_, i) => {
      let sum = 0
      for (let k = 0; k < 16; k++) sum += (values[Math.floor(i / 16) * 16 + k] as number) * at(k, i % 16)
      return sum
    })
    t.deepEqual(Array.from(out), expected, order)
  }
})

test('an index outside its array, a barrier that some do not come to, and mixed types are errors', (t) => {
  t.throws(() => outputs('out[i + 1u] = 1u;'), { instanceOf: RangeError, message: /index 64 of out, which has 64 elements/ })
  t.throws(() => outputs('if (i < 40u) { workgroupBarrier(); } out[i] = 1u;'), { message: /invocations of a subgroup part/ })
  t.throws(() => outputs('if (i < 32u) { workgroupBarrier(); } out[i] = 1u;'), { message: /barrier that others have not come to/ })
  t.throws(() => outputs('out[i] = i + 1.0;'), { instanceOf: SyntaxError, message: /u32 \+ f32/ })
  t.throws(() => outputs('out[i] = nowhere;'), { instanceOf: SyntaxError })
})
