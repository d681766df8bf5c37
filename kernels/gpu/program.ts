// Dispatches recorded once and encoded every step: gpu.js kernels and hand-written WGSL over resident buffers, in one encoder.
// Owns pipelines, bind groups and parameter buffers; knows no models.
import { BUFFER_USAGE } from './buffer-usage.js'
import type { GpuContext } from './context.js'
import type { BufferHandle, GpuJsInstance, GpuJsKernel, GpuJsSource } from './gpu-js.js'
import type { GpuTimer } from './gpu-timer.js'

/** What the workgroups of a step's dispatches follow from. */
export interface StepSize {
  /** Rows of the step. */
  readonly rows: number
  /** Rows whose logits are wanted. */
  readonly selected: number
  /** Parts of the row with the longest context. */
  readonly parts: number
  /** Entries of attention on tensor cores: rows alone, and groups of rows of one prompt. */
  readonly singles: number
  readonly prompts: number
}

/** The rows that a dispatch computes: all rows of the step, or those whose logits are wanted. */
export type RowSet = 'step' | 'selected'

function countOf(step: StepSize, rowSet: RowSet): number {
  return rowSet === 'step' ? step.rows : step.selected
}

/** One kernel with its buffers: recorded once, encoded in every step. */
export interface Dispatch {
  /** What people and profiles call it; several kernels may share a label. */
  readonly label: string
  readonly origin: 'gpu.js' | 'WGSL'
  readonly pipeline: GPUComputePipeline
  readonly bindGroup: GPUBindGroup
  /** Workgroups in a step of this size. A 0 skips the dispatch. */
  readonly groups: (step: StepSize) => readonly [number, number, number]
}

/** Copies between buffers whose places depend on the positions of the step's rows: encoded for one step only. */
export interface RowCopies {
  readonly label: string
  readonly origin: 'copy'
  readonly record: (encoder: GPUCommandEncoder, step: StepSize) => void
}

/** Dispatches of which a step takes the first rounds only, as many as its size calls for. */
export interface Rounds {
  readonly label: string
  readonly origin: 'rounds'
  readonly rounds: readonly (readonly Dispatch[])[]
  readonly count: (step: StepSize) => number
}

export type Command = Dispatch | RowCopies | Rounds

/** The dispatches and copies of a step of this size. */
export function commandsOfStep(commands: readonly Command[], step: StepSize): (Dispatch | RowCopies)[] {
  return commands.flatMap((command) => (command.origin === 'rounds' ? command.rounds.slice(0, command.count(step)).flat() : [command]))
}

/** A buffer as gpu.js sees it: [width], [width, rows] or [width, rows, planes] float32. */
export interface Shaped {
  readonly buffer: GPUBuffer
  readonly dims: readonly number[]
  /** Byte offset; what is before it does not count in dims. */
  readonly offset?: number
}

/** A dispatch of a step, and its workgroups. */
interface SizedDispatch extends Dispatch {
  readonly x: number
  readonly y: number
  readonly z: number
}

/** What a step of a size dispatches. Steps of one size follow each other, so it is found once and kept for the last few sizes. */
export class SizedCommands {
  static readonly SIZES = 4
  readonly #known = new WeakMap<readonly Command[], Map<string, readonly (SizedDispatch | RowCopies)[]>>()

  /** In order; without dispatches of no workgroup. */
  of(commands: readonly Command[], step: StepSize): readonly (SizedDispatch | RowCopies)[] {
    const bySize = this.#known.get(commands) ?? new Map<string, readonly (SizedDispatch | RowCopies)[]>()
    this.#known.set(commands, bySize)
    const { rows, selected, parts, singles, prompts } = step
    const key = `${rows} ${selected} ${parts} ${singles} ${prompts}`
    const known = bySize.get(key)
    if (known) return known
    const sized = commandsOfStep(commands, step).flatMap((command): (SizedDispatch | RowCopies)[] => {
      if (command.origin === 'copy') return [command]
      const [x, y, z] = command.groups(step)
      return x * y * z === 0 ? [] : [{ ...command, x, y, z }]
    })
    if (bySize.size >= SizedCommands.SIZES) bySize.delete(bySize.keys().next().value as string)
    bySize.set(key, sized)
    return sized
  }
}

const RESIDENT = BUFFER_USAGE.storage | BUFFER_USAGE.copyDst | BUFFER_USAGE.copySrc
const UNIFORM = BUFFER_USAGE.uniform | BUFFER_USAGE.copyDst

/** Makes buffers and dispatches: on a device (Program), or only as a list of labels (DryProgram). */
export interface ProgramParts {
  buffer(bytes: number): GPUBuffer
  tensor(...dims: number[]): Shaped
  upload(data: Float32Array | Uint32Array): GPUBuffer
  uniform(values: Uint32Array): GPUBuffer
  count(rowSet: RowSet): GPUBuffer
  gpuJs(
    label: string,
    source: GpuJsSource,
    constants: Readonly<Record<string, number>>,
    args: readonly Shaped[],
    out: Shaped,
    output: readonly (number | 'rows')[],
    rowSet?: RowSet,
  ): Promise<Dispatch>
  wgsl(label: string, code: string, buffers: readonly (GPUBuffer | undefined)[], groups: Dispatch['groups'], rowSet?: RowSet): Promise<Dispatch>
}

export class Program implements ProgramParts {
  readonly context: GpuContext
  readonly device: GPUDevice
  readonly #gpu: GpuJsInstance
  /** Bytes of all resident buffers. */
  bytes = 0
  /** Source of each gpu.js kernel by its id. */
  readonly #sources = new Map<string, GpuJsSource>()
  readonly #kernels = new Map<string, Promise<GpuJsKernel>>()
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>()
  /** Parameter buffers of gpu.js kernels by their contents: layers share them. `write` stores a number of rows in one. */
  readonly #params = new Map<string, { readonly buffer: GPUBuffer; readonly rowSet: RowSet; readonly write: (rows: number) => void }>()
  /** Numbers of rows that the parameter buffers hold. */
  readonly #written: Record<RowSet, number> = { step: 0, selected: 0 }
  readonly #sized = new SizedCommands()
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
   * A gpu.js kernel over resident buffers. output: dims, of which the last is the number of rows if it is 'rows'. A kernel is
   * compiled once for the name of its source function, its constants and its arities: see kernelKey.
   * Throws when gpu.js compiled it for anything but the device, and for two sources of one name.
   */
  async gpuJs(
    label: string,
    source: GpuJsSource,
    constants: Readonly<Record<string, number>>,
    args: readonly Shaped[],
    out: Shaped,
    output: readonly (number | 'rows')[],
    rowSet: RowSet = 'step',
  ): Promise<Dispatch> {
    const key = kernelKey(this.#sources, source, [constants, args.map((a) => a.dims.length), output.length])
    const kernel = await this.#once(this.#kernels, key, () => this.#build(source, constants, args, output))
    const params = this.#paramsOf(`${key} ${JSON.stringify([args.map((a) => a.dims), output, rowSet])}`, kernel, args, output, rowSet)
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
      label,
      origin: 'gpu.js',
      pipeline: kernel.computePipeline,
      bindGroup: this.device.createBindGroup({ layout: kernel.bindGroupLayout, entries }),
      groups: (step) => {
        const rows = countOf(step, rowSet)
        return [Math.ceil(at(0, rows) / wx), Math.ceil(at(1, rows) / wy), Math.ceil(at(2, rows) / wz)]
      },
    }
  }

  #once<T>(made: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
    const known = made.get(key)
    if (known) return known
    const promise = make()
    made.set(key, promise)
    return promise
  }

  async #build(source: GpuJsSource, constants: Readonly<Record<string, number>>, args: readonly Shaped[], output: readonly unknown[]) {
    const { kernel } = this.#gpu.createKernel(source, {
      output: output.map(() => 8),
      constants,
      constantTypes: Object.fromEntries(Object.entries(constants).map(([key, value]) => [key, Number.isInteger(value) ? 'Integer' : 'Float'])),
      argumentTypes: args.map(() => 'WebGPUBuffer'),
      // The default of 1000 truncates longer loops without an error.
      loopMaxIterations: 1 << 20,
    })
    if (kernel.constructor.mode !== 'webgpu') throw new Error(`gpu.js compiled ${source.name} for ${kernel.constructor.mode}, not for the GPU`)
    await kernel.build(...args.map((a) => this.#handle(a)))
    // gpu.js allocates an output buffer of its own, which is not used.
    kernel.outputBuffer?.destroy()
    kernel.outputBuffer = null
    return kernel
  }

  #handle({ buffer, dims }: Shaped): BufferHandle {
    return new this.context.gpuJs.WebGPUBufferResult({ buffer, output: [...dims], context: this.context.handle, kernel: null })
  }

  #paramsOf(key: string, kernel: GpuJsKernel, args: readonly Shaped[], output: readonly (number | 'rows')[], rowSet: RowSet): GPUBuffer {
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
    write(this.#written[rowSet])
    this.#params.set(key, { buffer, rowSet, write })
    return buffer
  }

  /** A compute pipeline from WGSL, made once for a source. Throws with the compiler's message and the line. */
  pipeline(code: string): Promise<GPUComputePipeline> {
    return this.#once(this.#pipelines, code, () => this.#createPipeline(code))
  }

  async #createPipeline(code: string): Promise<GPUComputePipeline> {
    const module = this.device.createShaderModule({ code })
    const { messages } = await module.getCompilationInfo()
    const error = messages.find((m) => m.type === 'error')
    if (error) throw new Error(`WGSL ${error.lineNum}:${error.linePos} ${error.message}: ${code.split('\n')[error.lineNum - 1]}`)
    return this.device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } })
  }

  /** A hand-written kernel; buffers in the order of its bindings, undefined where a binding is not used. */
  async wgsl(label: string, code: string, buffers: readonly (GPUBuffer | undefined)[], groups: Dispatch['groups']): Promise<Dispatch> {
    const pipeline = await this.pipeline(code)
    const entries = buffers.flatMap((buffer, binding) => (buffer ? [{ binding, resource: { buffer } }] : []))
    return { label, origin: 'WGSL', pipeline, bindGroup: this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }), groups }
  }

  /**
   * Encodes commands for a step of this size, in one pass; each in a pass of its own when they are timed. Writes the step's numbers
   * of rows to the device at once: what was encoded for a step of another size must have been submitted by now, or be dropped.
   */
  encode(encoder: GPUCommandEncoder, commands: readonly Command[], step: StepSize, timer?: GpuTimer): void {
    this.#writeRows('step', step.rows)
    // A step without logits encodes no command over the selected rows.
    if (step.selected > 0) this.#writeRows('selected', step.selected)
    let pass: GPUComputePassEncoder | undefined
    const endPass = () => {
      pass?.end()
      pass = undefined
    }
    let pipeline: GPUComputePipeline | undefined
    for (const command of this.#sized.of(commands, step)) {
      if (command.origin === 'copy') {
        endPass()
        command.record(encoder, step)
        continue
      }
      if (!pass) {
        pass = encoder.beginComputePass(timer?.pass(command.label))
        pipeline = undefined
      }
      if (command.pipeline !== pipeline) {
        pass.setPipeline(command.pipeline)
        pipeline = command.pipeline
      }
      pass.setBindGroup(0, command.bindGroup)
      pass.dispatchWorkgroups(command.x, command.y, command.z)
      if (timer) endPass()
    }
    endPass()
  }

  #writeRows(rowSet: RowSet, rows: number): void {
    if (this.#written[rowSet] === rows) return
    this.#written[rowSet] = rows
    this.device.queue.writeBuffer(this.#counts[rowSet], 0, Uint32Array.of(rows, 0, 0, 0))
    for (const params of this.#params.values()) if (params.rowSet === rowSet) params.write(rows)
  }
}

/**
 * What a gpu.js kernel is compiled for: the name of its source function, and what the code depends on. `sources` remembers which
 * function has which name. Throws Error for a function without a name, and for another function of a name that is known.
 */
export function kernelKey(sources: Map<string, GpuJsSource>, source: GpuJsSource, compiledFor: unknown): string {
  const id = source.name
  if (id === '') throw new Error('a gpu.js kernel must be a function with a name')
  const known = sources.get(id) ?? source
  if (known !== source) throw new Error(`two gpu.js kernels have the name ${id}`)
  sources.set(id, source)
  return `${id} ${JSON.stringify(compiledFor)}`
}
