// What is missing on a machine, and how to mend it: one row for each cause that has been met. Knows facts only; asks nothing.
import { automaticRanks } from '../../options/engine-options.js'
import { OLDEST_NODE } from '../../version.js'
import type { Diagnosis } from './doctor.js'
import { DRIVER_VARIABLES } from './system.js'

export interface Missing {
  /** Stable between versions; the wording is not. */
  readonly code: MissingCode
  readonly what: string
  readonly fix: string
}

export type MissingCode =
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

type Facts = Omit<Diagnosis, 'missing'>

/** For attention on tensor cores over an f16 cache. */
export const TENSOR_CORE_FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as const

/** The driver's libraries need these, which machines without a display lack. */
const NVIDIA_PACKAGES = 'libvulkan1 libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2'

export function findMissing(facts: Facts): Missing[] {
  return [...missingForCpu(facts), ...(facts.gpu.dawnError === undefined ? missingForGpu(facts) : [dawnMissing(facts, facts.gpu.dawnError)])]
}

function missingForCpu({ node, cores, coreQuota, simd }: Facts): Missing[] {
  const missing: Missing[] = []
  if (isOlder(node, OLDEST_NODE)) {
    missing.push({ code: 'node', what: `Node ${node} is too old`, fix: `install Node ${OLDEST_NODE} or newer` })
  }
  if (cores < 2) {
    missing.push({ code: 'cores', what: 'one core only, so one rank decodes alone', fix: 'give the machine or the container 2 or 4 cores' })
  } else if (coreQuota !== undefined && automaticRanks(coreQuota) < automaticRanks(cores)) {
    const ranks = automaticRanks(coreQuota)
    missing.push({
      code: 'core-quota',
      what: `the cgroup allows the time of ${coreQuota} cores, but Node counts ${cores}, so ranks wait for each other`,
      fix: `set ranks to ${ranks} (--ranks ${ranks})${isOlder(node, '22.0') ? ', or use Node 22 or newer, which heeds the limit' : ''}`,
    })
  }
  if (!simd.includes('relaxed')) {
    missing.push({
      code: 'relaxed-simd',
      what: 'no relaxed SIMD with fused multiply-add, so the wasm kernels are about a third slower',
      fix: 'use Node 22 or newer on a processor that has FMA (x86 since 2013, all arm64)',
    })
  }
  return missing
}

function dawnMissing({ platform }: Facts, error: string): Missing {
  const used = 'wasm is used'
  if (/GLIBC(XX)?_[\d.]+' not found/.test(error)) {
    const fix = 'use a system with glibc 2.34 or newer (Debian 12, Ubuntu 22.04, Fedora 35, RHEL 9)'
    return { code: 'dawn', what: `Dawn, the WebGPU library, needs glibc 2.34, and this system's is older; ${used}`, fix }
  }
  if (/Error loading shared library|Error relocating/.test(error)) {
    const fix = 'for a GPU use a system or image with glibc 2.34 or newer (Debian 12, say)'
    return { code: 'dawn', what: `Dawn, the WebGPU library, needs glibc, and this system (Alpine?) has musl; ${used}`, fix }
  }
  if (/Cannot find module .*dawn\.node/.test(error)) {
    return { code: 'dawn', what: `Dawn, the WebGPU library, has no binary for ${platform}; ${used}`, fix: 'none on this platform' }
  }
  if (/Cannot find package 'webgpu'/.test(error)) {
    return { code: 'dawn', what: `the package webgpu is not installed; ${used}`, fix: 'run npm install again, without leaving packages out' }
  }
  const library = error.match(/^(\S+\.so\S*): cannot open shared object file/)?.[1]
  const fix = library === undefined ? 'mend what the message says' : `install the system's package that has ${library}`
  return { code: 'dawn', what: `Dawn, the WebGPU library, can't be loaded (${error.split('\n')[0]}); ${used}`, fix }
}

function missingForGpu({ platform, gpu, adapter, auto }: Facts): Missing[] {
  const missing: Missing[] = []
  const hardware = gpu.adapters.filter(({ software }) => !software)
  const named = gpu.adapters.filter(({ name }) => adapter !== undefined && name.includes(adapter))
  for (const what of gpu.unanswered) {
    missing.push({ code: 'driver-answer', what, fix: "update the GPU's driver; until then wasm works (--backend wasm)" })
  }
  if (adapter !== undefined && auto.backend === undefined) {
    const names = gpu.adapters.map(({ name }) => `"${name}"`).join(', ')
    missing.push({
      code: 'adapter',
      what: `no adapter with "${adapter}" in its name answers, so loading with it fails`,
      fix: names ? `name one of ${names}, or leave --adapter out` : 'leave --adapter out, or mend what follows',
    })
  }
  if (platform.startsWith('linux')) missing.push(...missingOnLinux(gpu))
  else if (hardware.length === 0) missing.push({ code: 'gpu-driver', what: 'no GPU answers; wasm is used', fix: "update the graphics card's driver" })
  if (hardware.length === 0 && gpu.adapters[0] && named.length === 0) {
    missing.push({
      code: 'hardware-adapter',
      what: 'the only adapter is software, which is used only when named',
      fix: `to try it all the same: --adapter "${gpu.adapters[0].name}"`,
    })
  }
  for (const { name, features } of new Set([...hardware, ...named])) {
    const lacking = TENSOR_CORE_FEATURES.filter((feature) => !features.includes(feature))
    if (lacking.length === 0) continue
    missing.push({
      code: 'gpu-features',
      what: `${name} has no ${lacking.join(', no ')}, so attention over an f16 cache runs without tensor cores, slower in long contexts`,
      fix: 'a newer driver, if the GPU has tensor cores; all else runs as it is',
    })
  }
  return missing
}

function missingOnLinux(gpu: Facts['gpu']): Missing[] {
  const missing: Missing[] = []
  const hardware = gpu.adapters.filter(({ software }) => !software)
  const nvidia = gpu.deviceFiles.includes('/dev/nvidiactl')
  const nvidiaIcd = gpu.icdFiles.find((path) => /nvidia/.test(path))
  if (!gpu.vulkanLoader) {
    missing.push({
      code: 'vulkan-loader',
      what: 'there is no Vulkan loader (libvulkan.so.1), without which no GPU answers',
      fix: 'install libvulkan1 (Debian, Ubuntu) or vulkan-loader (Fedora)',
    })
  }
  for (const path of gpu.absentFiles) {
    const variable = DRIVER_VARIABLES.find((name) => gpu.variables[name]?.split(':').includes(path))
    missing.push({ code: 'driver-files', what: `${variable} names ${path}, which does not exist`, fix: `correct ${variable}, or unset it` })
  }
  if (gpu.deniedFiles.length > 0 && hardware.length === 0) {
    missing.push({
      code: 'device-permission',
      what: `this user may not open ${gpu.deniedFiles.join(', ')}`,
      fix: 'join the group that may (sudo usermod -aG render $USER), and log in again',
    })
  }
  if (nvidia && !hardware.some(({ vendor }) => /nvidia/i.test(vendor))) {
    missing.push({
      code: 'nvidia-driver',
      what: "there is an NVIDIA GPU, but its driver's Vulkan part (nvidia_icd.json and what it names) is not found",
      fix: `on a machine without a display install ${NVIDIA_PACKAGES}, and set VK_DRIVER_FILES=${nvidiaIcd ?? '<path of nvidia_icd.json, which the driver brings>'}`,
    })
  } else if (hardware.length === 0 && gpu.deviceFiles.length === 0) {
    missing.push({
      code: 'gpu-device',
      what: 'no GPU is to be seen (no /dev/dri/render*, /dev/nvidiactl or /dev/dxg)',
      fix: "if the machine has one, install its driver (mesa-vulkan-drivers, or NVIDIA's own and libvulkan1), and give a container the device (docker: --device /dev/dri, or --gpus all)",
    })
  } else if (hardware.length === 0) {
    missing.push({
      code: 'gpu-driver',
      what: `there is a GPU (${gpu.deviceFiles.join(', ')}), but no Vulkan driver for it that Dawn can use`,
      fix: 'install mesa-vulkan-drivers (AMD, Intel); if it is there, what Dawn has against it is on stderr',
    })
  }
  if (gpu.vulkanLoader && gpu.variables.XDG_RUNTIME_DIR === undefined) {
    missing.push({
      code: 'runtime-dir',
      what: 'XDG_RUNTIME_DIR is not set, of which Vulkan drivers complain on stderr',
      fix: 'set it to a folder of your own, /tmp if need be (export XDG_RUNTIME_DIR=/tmp)',
    })
  }
  return missing
}

/** Compares versions by major and minor. */
function isOlder(version: string, than: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldestMajor = 0, oldestMinor = 0] = than.split('.').map(Number)
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor)
}
