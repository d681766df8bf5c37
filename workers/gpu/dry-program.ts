// A program without a device: records the labels of dispatches, to list what a rank would run.
/// <reference types="@webgpu/types" />
import type { Dispatch, ProgramParts, Shaped } from '../../kernels/gpu/program.js'

/** Stands for every buffer; none is read or written. */
const NO_BUFFER = { size: 0 } as GPUBuffer

export class DryProgram implements ProgramParts {
  buffer(): GPUBuffer {
    return NO_BUFFER
  }

  tensor(...dims: number[]): Shaped {
    return { buffer: NO_BUFFER, dims }
  }

  upload(): GPUBuffer {
    return NO_BUFFER
  }

  uniform(): GPUBuffer {
    return NO_BUFFER
  }

  count(): GPUBuffer {
    return NO_BUFFER
  }

  async gpuJs(label: string): Promise<Dispatch> {
    return dispatch(label, 'gpu.js', (step) => [1, 1, step.rows])
  }

  async wgsl(label: string, _code: string, _buffers: unknown, groups: Dispatch['groups']): Promise<Dispatch> {
    return dispatch(label, 'WGSL', groups)
  }
}

function dispatch(label: string, origin: Dispatch['origin'], groups: Dispatch['groups']): Dispatch {
  return { label, origin, groups, pipeline: {} as GPUComputePipeline, bindGroup: {} as GPUBindGroup }
}
