import test from 'ava'
import { addPartials, swiglu } from '../../kernels/gpu/elementwise.js'
import type { GpuJsSource } from '../../kernels/gpu/gpu-js.js'
import { type Dispatch, kernelKey, SizedCommands, type StepSize } from '../../kernels/gpu/program.js'

test('gpu.js kernels are keyed by their source function: dispatches with other labels share one, two functions of one name are an error', (t) => {
  const sources = new Map<string, GpuJsSource>()
  const key = kernelKey(sources, addPartials, [{}, [2, 3]])
  t.is(kernelKey(sources, addPartials, [{}, [2, 3]]), key)
  t.not(kernelKey(sources, addPartials, [{ width: 4 }, [2, 3]]), key)
  t.not(kernelKey(sources, swiglu, [{}, [2, 3]]), key)
  const other: Record<string, GpuJsSource> = { addPartials: () => 0 }
  t.throws(() => kernelKey(sources, other.addPartials as GpuJsSource, [{}, [2, 3]]), { message: 'two gpu.js kernels have the name addPartials' })
  t.throws(
    () =>
      kernelKey(
        sources,
        (
          () => () =>
            0
        )(),
        [],
      ),
    { message: 'a gpu.js kernel must be a function with a name' },
  )
})

test('what a step dispatches follows from its size, and is found once for each of the last few sizes', (t) => {
  let asked = 0
  const dispatch = (label: string, groups: Dispatch['groups']) =>
    ({ label, origin: 'WGSL', pipeline: {}, bindGroup: {}, groups }) as unknown as Dispatch
  const rows = dispatch('rows', (step) => {
    asked++
    return [step.rows, 2, 1]
  })
  const one = dispatch('one', (step) => [step.rows === 1 ? 1 : 0, 1, 1])
  const commands = [rows, one, { label: 'rounds', origin: 'rounds' as const, rounds: [[rows], [rows]], count: (step: StepSize) => step.parts }]
  const sized = new SizedCommands()
  const of = (rows: number, parts = 1) =>
    sized
      .of(commands, { rows, selected: 1, parts, singles: rows, prompts: 0 })
      .map((d) => (d.origin === 'copy' ? d.label : `${d.label} ${d.x} ${d.y} ${d.z}`))
  t.deepEqual(of(1), ['rows 1 2 1', 'one 1 1 1', 'rows 1 2 1'])
  t.deepEqual(of(3, 2), ['rows 3 2 1', 'rows 3 2 1', 'rows 3 2 1'])
  const before = asked
  t.deepEqual(of(1), ['rows 1 2 1', 'one 1 1 1', 'rows 1 2 1'])
  t.is(asked, before)
  for (let n = 0; n < SizedCommands.SIZES; n++) of(10 + n)
  const forgotten = asked
  of(1)
  t.true(asked > forgotten)
})
