// The most likely token of rows of logits, on the device: a step that only samples greedily reads a few bytes back, not its logits.
// Keys are integers, so what counts as largest depends on no device: NaN above all, -0 as 0, and of equals the lowest id.

const THREADS = 256
/** Parts of a row, each a workgroup. */
export const ARGMAX_SLICES = 16
/** u32 of a part's result: key, id. */
export const ARGMAX_WORDS = 2

/** Keys of infinities: float32 bits, in an order that unsigned integers have. NaN is above them. */
const INFINITY_KEY = 0xff800000
const NEGATIVE_INFINITY_KEY = 0x007fffff

/** bindings: logits as bits [vocab, rows], results [ARGMAX_WORDS, ARGMAX_SLICES, rows]. Workgroups: ARGMAX_SLICES by rows. */
export function argmaxRows(vocab: number): string {
  const slice = Math.ceil(vocab / ARGMAX_SLICES)
  return `
@group(0) @binding(0) var<storage, read> logits : array<u32>;
@group(0) @binding(1) var<storage, read_write> results : array<vec2<u32>>;
var<workgroup> keys : array<u32, ${THREADS}>;
var<workgroup> ids : array<u32, ${THREADS}>;
fn keyOf(bits : u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0xffffffffu; }
  return select(0x80000000u | magnitude, ~bits, bits > 0x80000000u);
}
@compute @workgroup_size(${THREADS})
fn main(@builtin(local_invocation_index) lid : u32, @builtin(workgroup_id) id : vec3<u32>) {
  let end = min(${vocab}u, (id.x + 1u) * ${slice}u);
  var key = 0u; var best = 0xffffffffu;
  for (var i = id.x * ${slice}u + lid; i < end; i += ${THREADS}u) {
    let k = keyOf(logits[id.y * ${vocab}u + i]);
    if (k > key) { key = k; best = i; }
  }
  keys[lid] = key; ids[lid] = best;
  workgroupBarrier();
  for (var n = ${THREADS / 2}u; n > 0u; n >>= 1u) {
    if (lid < n) {
      let k = keys[lid + n]; let other = ids[lid + n];
      if (k > keys[lid] || (k == keys[lid] && other < ids[lid])) { keys[lid] = k; ids[lid] = other; }
    }
    workgroupBarrier();
  }
  if (lid == 0u) { results[id.y * ${ARGMAX_SLICES}u + id.x] = vec2<u32>(keys[0], ids[0]); }
}
`
}

/** Id of row `row` from the results, or -1 where a logit is NaN or the largest is infinite: what KernelBackend.argmax returns. */
export function argmaxOf(results: Uint32Array, row: number): number {
  let key = 0
  let id = -1
  for (let slice = 0; slice < ARGMAX_SLICES; slice++) {
    const at = (row * ARGMAX_SLICES + slice) * ARGMAX_WORDS
    if ((results[at] as number) <= key) continue
    key = results[at] as number
    id = results[at + 1] as number
  }
  return key > NEGATIVE_INFINITY_KEY && key < INFINITY_KEY ? id : -1
}
