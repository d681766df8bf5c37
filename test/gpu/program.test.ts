import test from 'ava'
import { addPartials, swiglu } from '../../kernels/gpu/elementwise.js'
import type { GpuJsSource } from '../../kernels/gpu/gpu-js.js'
import { kernelKey } from '../../kernels/gpu/program.js'

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
