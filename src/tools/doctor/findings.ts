// What is missing on a machine, and how to fix it: one finding for each cause that is known. Uses facts only; asks nothing.
import { automaticRanks } from '../../options/engine-options.js'
import { OLDEST_NODE } from '../../version.js'
import type { Diagnosis, Finding } from './diagnosis.js'
import { DRIVER_VARIABLES } from './system.js'

type Facts = Omit<Diagnosis, 'missing'>

/** Features that attention on tensor cores over an f16 cache needs. */
export const TENSOR_CORE_FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as const

/** Packages that the driver's libraries need, and that machines without a display lack. */
const NVIDIA_PACKAGES = 'libvulkan1 libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2'

export function findMissing(facts: Facts): Finding[] {
  return [...missingForCpu(facts), ...(facts.gpu.dawnError === undefined ? missingForGpu(facts) : [dawnMissing(facts, facts.gpu.dawnError)])]
}

function missingForCpu({ node, cores, coreQuota, simd }: Facts): Finding[] {
  const missing: Finding[] = []
  if (isOlder(node, OLDEST_NODE)) {
    missing.push({ code: 'node', what: `Node ${node} is too old`, fix: `install Node ${OLDEST_NODE} or newer` })
  }
  if (cores < 2) {
    missing.push({ code: 'cores', what: 'there is only one core, so a single rank decodes', fix: 'give the machine or the container 2 or 4 cores' })
  } else if (coreQuota !== undefined && automaticRanks(coreQuota) < automaticRanks(cores)) {
    const ranks = automaticRanks(coreQuota)
    missing.push({
      code: 'core-quota',
      what: `the cgroup allows the time of ${coreQuota} cores, but Node counts ${cores}, so ranks wait for each other`,
      fix: `set ranks to ${ranks} (--ranks ${ranks})${isOlder(node, '22.0') ? ', or use Node 22 or newer, which respects the limit' : ''}`,
    })
  }
  if (!simd.includes('relaxed')) {
    missing.push({
      code: 'relaxed-simd',
      what: 'there is no relaxed SIMD with fused multiply-add, so the wasm kernels are about a third slower',
      fix: 'use Node 22 or newer on a processor that has FMA (x86 since 2013, all arm64)',
    })
  }
  return missing
}

function dawnMissing({ platform }: Facts, error: string): Finding {
  const used = 'the wasm backend is used'
  if (/GLIBC(XX)?_[\d.]+' not found/.test(error)) {
    const fix = 'use a system with glibc 2.34 or newer (Debian 12, Ubuntu 22.04, Fedora 35, RHEL 9)'
    return { code: 'dawn', what: `Dawn, the WebGPU library, needs glibc 2.34, but this system has an older one; ${used}`, fix }
  }
  if (/Error loading shared library|Error relocating/.test(error)) {
    const fix = 'for a GPU use a system or image with glibc 2.34 or newer (for example Debian 12)'
    return { code: 'dawn', what: `Dawn, the WebGPU library, needs glibc, but this system (Alpine?) has musl; ${used}`, fix }
  }
  if (/Cannot find module .*dawn\.node/.test(error)) {
    return { code: 'dawn', what: `Dawn, the WebGPU library, has no binary for ${platform}; ${used}`, fix: 'there is none on this platform' }
  }
  if (/Cannot find package 'webgpu'/.test(error)) {
    return { code: 'dawn', what: `the package webgpu is not installed; ${used}`, fix: 'run npm install again without omitting packages' }
  }
  const library = error.match(/^(\S+\.so\S*): cannot open shared object file/)?.[1]
  const fix = library === undefined ? 'fix the cause that the message names' : `install the system package that contains ${library}`
  return { code: 'dawn', what: `Dawn, the WebGPU library, cannot be loaded (${error.split('\n')[0]}); ${used}`, fix }
}

function missingForGpu({ platform, gpu, adapter, auto }: Facts): Finding[] {
  const missing: Finding[] = []
  const hardware = gpu.adapters.filter(({ software }) => !software)
  const named = gpu.adapters.filter(({ name }) => adapter !== undefined && name.includes(adapter))
  for (const what of gpu.unanswered) {
    missing.push({ code: 'driver-answer', what, fix: "update the GPU's driver; until then wasm works (--backend wasm)" })
  }
  if (adapter !== undefined && auto.backend === undefined) {
    const names = gpu.adapters.map(({ name }) => `"${name}"`).join(', ')
    missing.push({
      code: 'adapter',
      what: `no adapter with "${adapter}" in its name answers, so loading a model with it fails`,
      fix: names ? `name one of ${names}, or omit --adapter` : 'omit --adapter, or fix what follows',
    })
  }
  if (platform.startsWith('linux')) missing.push(...missingOnLinux(gpu))
  else if (hardware.length === 0)
    missing.push({ code: 'gpu-driver', what: 'no GPU answers; the wasm backend is used', fix: "update the graphics card's driver" })
  if (hardware.length === 0 && gpu.adapters[0] && named.length === 0) {
    missing.push({
      code: 'hardware-adapter',
      what: 'the only adapter is a software adapter, which is used only if it is named',
      fix: `to try it: --adapter "${gpu.adapters[0].name}"`,
    })
  }
  for (const { name, features } of new Set([...hardware, ...named])) {
    const lacking = TENSOR_CORE_FEATURES.filter((feature) => !features.includes(feature))
    if (lacking.length === 0) continue
    missing.push({
      code: 'gpu-features',
      what: `${name} has no ${lacking.join(', no ')}, so attention over an f16 cache runs without tensor cores, which is slower in long contexts`,
      fix: 'install a newer driver if the GPU has tensor cores; everything else works without',
    })
  }
  return missing
}

function missingOnLinux(gpu: Facts['gpu']): Finding[] {
  const missing: Finding[] = []
  const hardware = gpu.adapters.filter(({ software }) => !software)
  const nvidia = gpu.deviceFiles.includes('/dev/nvidiactl')
  const nvidiaIcd = gpu.icdFiles.find((path) => /nvidia/.test(path))
  if (!gpu.vulkanLoader) {
    missing.push({
      code: 'vulkan-loader',
      what: 'there is no Vulkan loader (libvulkan.so.1), so no GPU answers',
      fix: 'install libvulkan1 (Debian, Ubuntu) or vulkan-loader (Fedora)',
    })
  }
  for (const path of gpu.absentFiles) {
    const variable = DRIVER_VARIABLES.find((name) => gpu.variables[name]?.split(':').includes(path))
    missing.push({ code: 'driver-files', what: `${variable} names ${path}, which does not exist`, fix: `correct or unset ${variable}` })
  }
  if (gpu.deniedFiles.length > 0 && hardware.length === 0) {
    missing.push({
      code: 'device-permission',
      what: `this user has no permission to open ${gpu.deniedFiles.join(', ')}`,
      fix: 'join the group that has it (sudo usermod -aG render $USER), and log in again',
    })
  }
  if (nvidia && !hardware.some(({ vendor }) => /nvidia/i.test(vendor))) {
    missing.push({
      code: 'nvidia-driver',
      what: "there is an NVIDIA GPU, but its driver's Vulkan part (nvidia_icd.json and the libraries that it names) is not found",
      fix: `on a machine without a display install ${NVIDIA_PACKAGES}, and set VK_DRIVER_FILES=${nvidiaIcd ?? '<path of nvidia_icd.json, which the driver installs>'}`,
    })
  } else if (hardware.length === 0 && gpu.deviceFiles.length === 0) {
    missing.push({
      code: 'gpu-device',
      what: 'no GPU is visible (no /dev/dri/render*, /dev/nvidiactl or /dev/dxg)',
      fix: "if the machine has one, install its driver (mesa-vulkan-drivers, or NVIDIA's and libvulkan1); a container needs the device (docker: --device /dev/dri, or --gpus all)",
    })
  } else if (hardware.length === 0) {
    missing.push({
      code: 'gpu-driver',
      what: `there is a GPU (${gpu.deviceFiles.join(', ')}), but no Vulkan driver for it that Dawn can use`,
      fix: 'install mesa-vulkan-drivers (AMD, Intel); if it is installed, Dawn says on stderr why it cannot use it',
    })
  }
  if (gpu.vulkanLoader && gpu.variables.XDG_RUNTIME_DIR === undefined) {
    missing.push({
      code: 'runtime-dir',
      what: 'XDG_RUNTIME_DIR is not set, which Vulkan drivers report on stderr',
      fix: 'set it to a folder that only you can read, or to /tmp (export XDG_RUNTIME_DIR=/tmp)',
    })
  }
  return missing
}

/** Compares major and minor versions. */
function isOlder(version: string, than: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldestMajor = 0, oldestMinor = 0] = than.split('.').map(Number)
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor)
}
