// Dispatches recorded once and encoded every step: gpu.js kernels and hand-written WGSL over resident buffers, in one encoder.
// Owns pipelines, bind groups and parameter buffers; knows no models.
import type { GpuContext } from './context.js'
import type { BufferHandle, GpuJsInstance, GpuJsKernel, GpuJsSource } from './gpu-js.js'
import type { GpuTimer } from './gpu-timer.js'

/** Rows that a dispatch is for: those of the step, or those whose logits are wanted. */
export type RowSet = 'step' | 'selected'

/** One entry of a step's list. */
export interface Dispatch {
  readonly name: string
  readonly origin: 'gpu.js' | 'WGSL'
  readonly pipeline: GPUComputePipeline
  readonly bindGroup: GPUBindGroup
  /** Workgroups for a number of rows. */
  readonly groups: (rows: number) => readonly [number, number, number]
  readonly rowSet: RowSet
}

/** Copies of rows between buffers, as positions of the step's rows have them. */
export interface RowCopies {
  readonly name: string
  readonly origin: 'copy'
  readonly record: (encoder: GPUCommandEncoder, rows: number) => void
  readonly rowSet: RowSet
}

export type Command = Dispatch | RowCopies

/** A buffer as gpu.js sees it: [width], [width, rows] or [width, rows, planes] float32. */
export interface Shaped {
  readonly buffer: GPUBuffer
  readonly dims: readonly number[]
  /** Byte offset; what is before it does not count in dims. */
  readonly offset?: number
}

/** STORAGE | COPY_DST | COPY_SRC. */
const RESIDENT = 0x80 | 8 | 4
const UNIFORM = 0x40 | 8

/** What makes buffers and dispatches. */
export interface ProgramParts {
  buffer(bytes: number): GPUBuffer
  tensor(...dims: number[]): Shaped
  upload(data: Float32Array | Uint32Array): GPUBuffer
  uniform(values: Uint32Array): GPUBuffer
  count(rowSet: RowSet): GPUBuffer
  gpuJs(
    name: string,
    source: GpuJsSource,
    constants: Readonly<Record<string, number>>,
    args: readonly Shaped[],
    out: Shaped,
    output: readonly (number | 'rows')[],
    rowSet?: RowSet,
  ): Promise<Dispatch>
  wgsl(name: string, code: string, buffers: readonly (GPUBuffer | undefined)[], groups: Dispatch['groups'], rowSet?: RowSet): Promise<Dispatch>
}

export class Program implements ProgramParts {
  readonly context: GpuContext
  readonly device: GPUDevice
  readonly #gpu: GpuJsInstance
  /** Of all buffers asked for. */
  bytes = 0
  readonly #kernels = new Map<string, Promise<GpuJsKernel>>()
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>()
  /** Parameters of gpu.js kernels by what they hold: layers share them. `write` puts a number of rows in. */
  readonly #params = new Map<string, { readonly buffer: GPUBuffer; readonly rowSet: RowSet; readonly write: (rows: number) => void }>()
  readonly #rows: Record<RowSet, number> = { step: 0, selected: 0 }
  /** [rows, 0, 0, 0] for WGSL. */
  readonly #counts: Readonly<Record<RowSet, GPUBuffer>>

  constructor(context: GpuContext) {
    this.context = context
    this.device = context.device
    this.#gpu = new context.gpuJs.GPU({ mode: 'webgpu' })
    const count = () => this.device.createBuffer({ size: 16, usage: UNIFORM })
    this.#counts = { step: count(), selected: count() }
  }

  /** A resident buffer of zeros. */
  buffer(bytes: number): GPUBuffer {
    const size = Math.max(16, Math.ceil(bytes / 16) * 16)
    this.bytes += size
    return this.device.createBuffer({ size, usage: RESIDENT })
  }

  /** A resident buffer of [width, rows, planes] float32. */
  tensor(...dims: number[]): Shaped {
    return { buffer: this.buffer(dims.reduce((a, b) => a * b, 4)), dims }
  }

  upload(data: Float32Array | Uint32Array): GPUBuffer {
    const buffer = this.buffer(data.byteLength)
    if (data.byteLength > 0) this.device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>)
    return buffer
  }

  uniform(values: Uint32Array): GPUBuffer {
    const buffer = this.device.createBuffer({ size: Math.ceil(values.byteLength / 16) * 16, usage: UNIFORM })
    this.device.queue.writeBuffer(buffer, 0, values as Uint32Array<ArrayBuffer>)
    return buffer
  }

  /** Uniform that holds the number of rows. */
  count(rowSet: RowSet): GPUBuffer {
    return this.#counts[rowSet]
  }

  /**
   * A gpu.js kernel over resident buffers. output: dims, of which the last is the number of rows if it is 'rows'.
   * Throws when gpu.js compiled it for anything but the device.
   */
  async gpuJs(
    name: string,
    source: GpuJsSource,
    constants: Readonly<Record<string, number>>,
    args: readonly Shaped[],
    out: Shaped,
    output: readonly (number | 'rows')[],
    rowSet: RowSet = 'step',
  ): Promise<Dispatch> {
    const kernel = await this.#compile(name, source, constants, args, output)
    const params = this.#paramsOf(name, kernel, constants, args, output, rowSet)
    const entries = [
      { binding: 0, resource: { buffer: params } },
      ...args.map(({ buffer, offset = 0 }, i) => ({ binding: 1 + i, resource: { buffer, offset } })),
      { binding: 1 + args.length, resource: { buffer: out.buffer, offset: out.offset ?? 0 } },
    ]
    const [wx, wy, wz] = kernel.workgroupSize
    const at = (i: number, rows: number) => {
      const d = output[i] ?? 1
      return d === 'rows' ? rows : d
    }
    return {
      name,
      origin: 'gpu.js',
      pipeline: kernel.computePipeline,
      bindGroup: this.device.createBindGroup({ layout: kernel.bindGroupLayout, entries }),
      groups: (rows) => [Math.ceil(at(0, rows) / wx), Math.ceil(at(1, rows) / wy), Math.ceil(at(2, rows) / wz)],
      rowSet,
    }
  }

  #compile(name: string, source: GpuJsSource, constants: Readonly<Record<string, number>>, args: readonly Shaped[], output: readonly unknown[]) {
    const key = `${name} ${JSON.stringify(constants)} ${args.map((a) => a.dims.length).join()} ${output.length}`
    const made = this.#kernels.get(key)
    if (made) return made
    const compiled = this.#build(name, source, constants, args, output)
    this.#kernels.set(key, compiled)
    return compiled
  }

  async #build(name: string, source: GpuJsSource, constants: Readonly<Record<string, number>>, args: readonly Shaped[], output: readonly unknown[]) {
    const { kernel } = this.#gpu.createKernel(source, {
      output: output.map(() => 8),
      constants,
      constantTypes: Object.fromEntries(Object.entries(constants).map(([key, value]) => [key, Number.isInteger(value) ? 'Integer' : 'Float'])),
      argumentTypes: args.map(() => 'WebGPUBuffer'),
      // The default of 1000 cuts loops off without a word.
      loopMaxIterations: 1 << 20,
    })
    if (kernel.constructor.mode !== 'webgpu') throw new Error(`gpu.js compiled ${name} for ${kernel.constructor.mode}, not for the GPU`)
    await kernel.build(...args.map((a) => this.#handle(a)))
    // It comes with an output of its own, which is not used.
    kernel.outputBuffer?.destroy()
    kernel.outputBuffer = null
    return kernel
  }

  #handle({ buffer, dims }: Shaped): BufferHandle {
    return new this.context.gpuJs.WebGPUBufferResult({ buffer, output: [...dims], context: this.context.handle, kernel: null })
  }

  #paramsOf(
    name: string,
    kernel: GpuJsKernel,
    constants: object,
    args: readonly Shaped[],
    output: readonly (number | 'rows')[],
    rowSet: RowSet,
  ): GPUBuffer {
    const key = `${name} ${JSON.stringify([constants, args.map((a) => a.dims), output, rowSet])}`
    const made = this.#params.get(key)
    if (made) return made.buffer
    const { byteLength, arrayArgs } = kernel.paramsLayout
    const buffer = this.device.createBuffer({ size: byteLength, usage: UNIFORM })
    const values = new Uint32Array(byteLength / 4)
    for (const { index, dimsOffset } of arrayArgs) {
      const [x = 1, y = 1, z = 1] = (args[index] as Shaped).dims
      values.set([x, y, z, x * y * z], dimsOffset / 4)
    }
    const write = (rows: number) => {
      for (let i = 0; i < 3; i++) {
        const d = output[i] ?? 1
        values[i] = d === 'rows' ? rows : d
      }
      this.device.queue.writeBuffer(buffer, 0, values as Uint32Array<ArrayBuffer>)
    }
    write(this.#rows[rowSet])
    this.#params.set(key, { buffer, rowSet, write })
    return buffer
  }

  /** A compute pipeline from WGSL, made once for a source. Throws with the compiler's message and the line. */
  pipeline(code: string): Promise<GPUComputePipeline> {
    const made = this.#pipelines.get(code)
    if (made) return made
    const created = this.#createPipeline(code)
    this.#pipelines.set(code, created)
    return created
  }

  async #createPipeline(code: string): Promise<GPUComputePipeline> {
    const module = this.device.createShaderModule({ code })
    const { messages } = await module.getCompilationInfo()
    const error = messages.find((m) => m.type === 'error')
    if (error) throw new Error(`WGSL ${error.lineNum}:${error.linePos} ${error.message}: ${code.split('\n')[error.lineNum - 1]}`)
    return this.device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } })
  }

  /** A hand-written kernel; buffers in the order of its bindings, undefined where it has none. */
  async wgsl(
    name: string,
    code: string,
    buffers: readonly (GPUBuffer | undefined)[],
    groups: Dispatch['groups'],
    rowSet: RowSet = 'step',
  ): Promise<Dispatch> {
    const pipeline = await this.pipeline(code)
    const entries = buffers.flatMap((buffer, binding) => (buffer ? [{ binding, resource: { buffer } }] : []))
    return {
      name,
      origin: 'WGSL',
      pipeline,
      bindGroup: this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      groups,
      rowSet,
    }
  }

  /** Tells kernels how many rows the next dispatches are for. */
  setRows(rowSet: RowSet, rows: number): void {
    if (this.#rows[rowSet] === rows) return
    this.#rows[rowSet] = rows
    this.device.queue.writeBuffer(this.#counts[rowSet], 0, Uint32Array.of(rows, 0, 0, 0))
    for (const params of this.#params.values()) if (params.rowSet === rowSet) params.write(rows)
  }

  /** Encodes dispatches, in one pass; each in its own when they are timed. */
  encode(encoder: GPUCommandEncoder, commands: readonly Command[], timer?: GpuTimer): void {
    let pass: GPUComputePassEncoder | undefined
    const endPass = () => {
      pass?.end()
      pass = undefined
    }
    for (const command of commands) {
      const rows = this.#rows[command.rowSet]
      if (command.origin === 'copy') {
        endPass()
        command.record(encoder, rows)
        continue
      }
      const [x, y, z] = command.groups(rows)
      if (x * y * z === 0) continue
      pass ??= encoder.beginComputePass(timer?.pass(command.name))
      pass.setPipeline(command.pipeline)
      pass.setBindGroup(0, command.bindGroup)
      pass.dispatchWorkgroups(x, y, z)
      if (timer) endPass()
    }
    endPass()
  }
}
