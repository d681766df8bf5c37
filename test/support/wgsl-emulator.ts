// Runs a WGSL compute kernel in JavaScript, for devices that no test machine has: subgroup matrices and subgroups of 32, shared memory and
// barriers. Slow and exact about places: an index outside its array, a barrier that not all invocations come to, and a subgroup operation
// whose operands differ throw. float32 arithmetic rounds after every operation; sums of subgroup matrices round once per 16 products.
import { parse } from './wgsl/parser.js'
import { FUNCTIONS, HELPERS, Memory, OPERATORS } from './wgsl/runtime.js'
import { Translator } from './wgsl/translate.js'
import { sizeOf } from './wgsl/types.js'

/** Invocations of a subgroup. */
const LANES = 32

type Operation =
  | { readonly kind: 'barrier' }
  /** The same in all invocations of a subgroup, and done once. */
  | { readonly kind: 'uniform'; readonly argument?: number; readonly run: () => unknown }
  | { readonly kind: string; readonly value: number | readonly number[]; readonly argument: number }

type Invocation = Generator<Operation, void, unknown>

export interface EmulatedKernel {
  /** buffers: by binding; written in place. Invocations of a subgroup run in descending order if `descending`: results must not change. */
  run(buffers: Readonly<Record<number, ArrayBufferView<ArrayBuffer>>>, workgroups: readonly [number, number, number], descending?: boolean): void
}

export function emulate(source: string): EmulatedKernel {
  const module = parse(source)
  const entry = module.functions.find((f) => f.attributes.some((a) => a.name === 'compute'))
  const size = entry?.attributes.find((a) => a.name === 'workgroup_size')?.value
  if (!entry || size === undefined) throw new SyntaxError('no WGSL entry point')
  const [threads = 1] = size.split(',').map((n) => Number.parseInt(n, 10))
  const translator = new Translator(module)
  const body = translator.program(entry)
  // The source is a kernel that the project wrote.
  const start = new Function('m', 'o', 'f', 'h', body) as (
    m: Record<string, Memory>,
    o: typeof OPERATORS,
    f: typeof FUNCTIONS,
    h: typeof HELPERS,
  ) => (...builtins: unknown[]) => Invocation
  const shared = module.variables.filter((v) => v.space === 'workgroup')

  return {
    run(buffers, [x, y, z], descending = false) {
      const memories: Record<string, Memory> = {}
      for (const { name, binding } of module.variables) {
        if (binding === undefined) continue
        const buffer = buffers[binding]
        if (!buffer) throw new RangeError(`no buffer for binding ${binding}, ${name}`)
        memories[name] = new Memory(name, buffer)
      }
      for (let group = 0; group < x * y * z; group++) {
        for (const { name, type } of shared) {
          if (type) memories[name] = new Memory(name, new Uint8Array(sizeOf(translator.types.resolve(type))))
        }
        const id = [group % x, Math.floor(group / x) % y, Math.floor(group / (x * y))]
        const main = start(memories, OPERATORS, FUNCTIONS, HELPERS)
        const invocations = Array.from({ length: threads }, (_, index) => {
          const builtins: Record<string, unknown> = {
            workgroup_id: id,
            local_invocation_index: index,
            local_invocation_id: [index, 0, 0],
            global_invocation_id: [(id[0] as number) * threads + index, id[1], id[2]],
            num_workgroups: [x, y, z],
            subgroup_id: Math.floor(index / LANES),
            subgroup_invocation_id: index % LANES,
          }
          return main(
            ...entry.parameters.map(({ builtin = '' }) => {
              if (!Object.hasOwn(builtins, builtin)) throw new SyntaxError(`no WGSL builtin ${builtin}`)
              return builtins[builtin]
            }),
          )
        })
        runWorkgroup(invocations, descending)
      }
    },
  }
}

function runWorkgroup(invocations: readonly Invocation[], descending: boolean): void {
  const subgroups = Array.from({ length: Math.ceil(invocations.length / LANES) }, (_, s) => invocations.slice(s * LANES, (s + 1) * LANES))
  if (descending) subgroups.reverse()
  for (;;) {
    // Each goes on to its next barrier, or to its end.
    const ended = subgroups.map((subgroup) => runToBarrier(subgroup, descending))
    if (ended.every((e) => e)) return
    if (ended.some((e) => e)) throw new Error('some subgroups of a workgroup wait at a barrier that others have not come to')
  }
}

/** true: all of its invocations have ended. */
function runToBarrier(subgroup: readonly Invocation[], descending: boolean): boolean {
  const order = subgroup.map((_, i) => i)
  if (descending) order.reverse()
  let answers: readonly unknown[] = []
  for (;;) {
    const operations: (Operation | undefined)[] = []
    for (const lane of order) {
      const { done, value } = (subgroup[lane] as Invocation).next(answers[lane])
      operations[lane] = done ? undefined : (value as Operation)
    }
    const [first] = operations
    if (operations.some((operation) => operation?.kind !== first?.kind))
      throw new Error(`invocations of a subgroup part: ${operations.map((o) => o?.kind ?? 'ended').join()}`)
    if (!first) return true
    if (first.kind === 'barrier') return false
    answers = answer(operations as Operation[])
  }
}

function answer(operations: readonly Operation[]): readonly unknown[] {
  const [first] = operations
  if (first?.kind === 'uniform' && 'run' in first) {
    if (operations.some((o) => 'argument' in o && o.argument !== first.argument))
      throw new Error('invocations of a subgroup load a matrix from different places')
    const result = first.run()
    return operations.map(() => result)
  }
  const all = operations as readonly { kind: string; value: number | readonly number[]; argument: number }[]
  const valueAt = (lane: number) => {
    const other = all[lane]
    if (!other) throw new RangeError(`no invocation ${lane} in a subgroup of ${all.length}`)
    return other.value
  }
  const combined = (f: (a: number, b: number) => number) => all.map(({ value }) => value as number).reduce((a, b) => f(a, b))
  switch (all[0]?.kind) {
    case 'subgroupShuffleXor':
      return all.map(({ argument }, lane) => valueAt(lane ^ argument))
    case 'subgroupShuffle':
    case 'subgroupBroadcast':
      return all.map(({ argument }) => valueAt(argument))
    case 'subgroupAdd':
      return Array(all.length).fill(combined((a, b) => Math.fround(a + b)))
    case 'subgroupMax':
      return Array(all.length).fill(combined(Math.max))
    case 'subgroupMin':
      return Array(all.length).fill(combined(Math.min))
    default:
      throw new SyntaxError(`no subgroup operation ${all[0]?.kind}`)
  }
}
