// What the operating system shows of processors, GPU devices and Vulkan drivers. Reads files and the environment; does not use Dawn.
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs'
import { constants as osConstants } from 'node:os'
import { dirname, join } from 'node:path'
import { gpuDeviceFiles } from '../../engine/choose-backend.js'

/** What the operating system shows of GPUs. */
export interface GpuSystem {
  /** Device files of GPUs (Linux). */
  readonly deviceFiles: readonly string[]
  /** Those of them that this user has no permission to open. */
  readonly deniedFiles: readonly string[]
  /** Whether libvulkan.so.1 can be loaded. Absent on systems where Dawn does not use Vulkan. */
  readonly vulkanLoader?: boolean
  /** Version of NVIDIA's kernel module. */
  readonly nvidiaDriver?: string
  /** ICD files in the system's folders, by which Vulkan drivers are registered. */
  readonly icdFiles: readonly string[]
  /** Environment variables that decide which drivers are loaded, if they are set. */
  readonly variables: Readonly<Record<string, string>>
  /** Files that those variables name and that do not exist. */
  readonly absentFiles: readonly string[]
}

const ICD_FOLDERS = ['/etc/vulkan/icd.d', '/usr/local/share/vulkan/icd.d', '/usr/share/vulkan/icd.d']

export const DRIVER_VARIABLES = ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'] as const

export function lookForGpus(): GpuSystem {
  if (process.platform !== 'linux') return { deviceFiles: [], deniedFiles: [], icdFiles: [], variables: {}, absentFiles: [] }
  const deviceFiles = gpuDeviceFiles()
  const variables = [...DRIVER_VARIABLES, 'XDG_RUNTIME_DIR'].flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : []))
  const driverFiles = DRIVER_VARIABLES.flatMap((name) => process.env[name]?.split(':') ?? []).filter((path) => path !== '')
  // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  ..."
  const nvidiaDriver = read('/proc/driver/nvidia/version')?.match(/\s(\d+\.\d+(?:\.\d+)?)\s/)?.[1]
  return {
    deviceFiles,
    deniedFiles: deviceFiles.filter((path) => !mayOpen(path)),
    vulkanLoader: canLoad('libvulkan.so.1'),
    ...(nvidiaDriver === undefined ? {} : { nvidiaDriver }),
    icdFiles: ICD_FOLDERS.flatMap(jsonFiles),
    variables: Object.fromEntries(variables) as Record<string, string>,
    absentFiles: driverFiles.filter((path) => !existsSync(path)),
  }
}

/** Number of cores whose time the cgroups of this process allow; undefined: no limit. root: of the file system. */
export function coreQuota(root = '/'): number | undefined {
  const quotas: number[] = []
  for (const line of read(join(root, 'proc/self/cgroup'))?.split('\n') ?? []) {
    const [, controllers, path] = line.match(/^\d+:([^:]*):(\/.*)$/) ?? []
    if (controllers === undefined || path === undefined) continue
    if (controllers === '') {
      // Version 2: "150000 100000", microseconds per period, or "max 100000".
      for (const folder of ancestors(join(root, 'sys/fs/cgroup'), path)) quotas.push(ratio(...(read(join(folder, 'cpu.max'))?.split(' ') ?? [])))
    } else if (controllers.split(',').includes('cpu')) {
      for (const mount of [controllers, 'cpu']) {
        for (const folder of ancestors(join(root, 'sys/fs/cgroup', mount), path)) {
          quotas.push(ratio(read(join(folder, 'cpu.cfs_quota_us')), read(join(folder, 'cpu.cfs_period_us'))))
        }
      }
    }
  }
  const least = Math.min(...quotas.filter((quota) => quota > 0))
  return Number.isFinite(least) ? least : undefined
}

/** The folder of a cgroup and all folders above it: a parent's quota applies too, and a container may see its own group as the root. */
function ancestors(mount: string, path: string): string[] {
  return path === '/' ? [mount] : [join(mount, path), ...ancestors(mount, dirname(path))]
}

function ratio(quota?: string, period?: string): number {
  return Number(quota) / Number(period)
}

/** Asks the dynamic linker, which knows all its folders: Node opens the library and then reports that it is not an addon. */
function canLoad(library: string): boolean {
  try {
    process.dlopen({ exports: {} }, library, osConstants.dlopen.RTLD_LAZY)
    return true
  } catch (error) {
    return error instanceof Error && /did not self-register/.test(error.message)
  }
}

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

function jsonFiles(folder: string): string[] {
  try {
    return readdirSync(folder).flatMap((name) => (name.endsWith('.json') ? [join(folder, name)] : []))
  } catch {
    return []
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}
