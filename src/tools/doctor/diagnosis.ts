// What the doctor reports. Types only.
import type { BackendName } from '../../../kernels/backend.js'
import type { AdapterDescription } from '../../../kernels/gpu/adapter.js'
import type { SimdLevel } from '../../../kernels/wasm/simd-level.js'
import type { RankCount } from '../../../workers/protocol.js'
import type { GpuSystem } from './system.js'

/** What a machine offers. */
export interface Diagnosis {
  /** Version of Tetrad. */
  readonly tetrad: string
  readonly node: string
  /** For example linux-x64. */
  readonly platform: string
  /** As Node counts them. */
  readonly cores: number
  /** Number of cores whose time the cgroup allows, if it limits it. */
  readonly coreQuota?: number
  readonly memoryBytes: number
  /** Builds of the wasm kernels that run here, the best one last. */
  readonly simd: readonly SimdLevel[]
  readonly gpu: GpuSystem & {
    /** Why Dawn, the library of the gpu backend, cannot be loaded. */
    readonly dawnError?: string
    readonly adapters: readonly AdapterDescription[]
    /** Questions that the driver did not answer in time, or answered with an error. */
    readonly unanswered: readonly string[]
  }
  /** The adapter that was asked for. */
  readonly adapter?: string
  /** What backend: 'auto' and ranks: 'auto' choose here. backend is absent if the adapter that was asked for does not answer. */
  readonly auto: { readonly backend?: BackendName; readonly reason: string; readonly ranks: RankCount }
  /** What is missing, and how to fix it. */
  readonly missing: readonly Finding[]
}

/** A thing that is missing. */
export interface Finding {
  /** Stable between versions; the wording is not. */
  readonly code: FindingCode
  readonly what: string
  readonly fix: string
}

/** A stable code of a finding. */
export type FindingCode =
  | 'node'
  | 'cores'
  | 'core-quota'
  | 'relaxed-simd'
  | 'dawn'
  | 'vulkan-loader'
  | 'driver-files'
  | 'device-permission'
  | 'nvidia-driver'
  | 'gpu-device'
  | 'gpu-driver'
  | 'driver-answer'
  | 'adapter'
  | 'hardware-adapter'
  | 'runtime-dir'
  | 'gpu-features'
