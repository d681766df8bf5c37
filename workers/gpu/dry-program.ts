// A program that records names only: which dispatches a rank would have, without a device.
/// <reference types="@webgpu/types" />
import type { Dispatch, ProgramParts, RowSet, Shaped } from '../../kernels/gpu/program.js'

/** No buffer is ever touched. */
const NOTHING = { size: 0 } as GPUBuffer

export class DryProgram implements ProgramParts {
  buffer(): GPUBuffer {
    return NOTHING
  }

  tensor(...dims: number[]): Shaped {
    return { buffer: NOTHING, dims }
  }

  upload(): GPUBuffer {
    return NOTHING
  }

  uniform(): GPUBuffer {
    return NOTHING
  }

  count(): GPUBuffer {
    return NOTHING
  }

  async gpuJs(name: string, _source: unknown, _constants: unknown, _args: unknown, _out: unknown, _output: unknown, rowSet: RowSet = 'step') {
    return this.#dispatch(name, 'gpu.js', rowSet, (rows) => [1, 1, rows])
  }

  async wgsl(name: string, _code: string, _buffers: unknown, groups: Dispatch['groups'], rowSet: RowSet = 'step') {
    return this.#dispatch(name, 'WGSL', rowSet, groups)
  }

  #dispatch(name: string, origin: Dispatch['origin'], rowSet: RowSet, groups: Dispatch['groups']): Dispatch {
    return { name, origin, rowSet, groups, pipeline: {} as GPUComputePipeline, bindGroup: {} as GPUBindGroup }
  }
}
