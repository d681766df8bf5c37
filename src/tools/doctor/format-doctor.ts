// A diagnosis as text for people.
import type { AdapterDescription } from '../../../kernels/gpu/adapter.js'
import type { Diagnosis } from './diagnosis.js'
import { TENSOR_CORE_FEATURES } from './findings.js'

export function formatDiagnosis(d: Diagnosis): string {
  const { gpu, auto } = d
  const quota = d.coreQuota === undefined ? '' : `, of which the cgroup allows the time of ${d.coreQuota}`
  const vulkan = gpu.vulkanLoader === undefined ? [] : [`Vulkan         ${gpu.vulkanLoader ? 'loader found' : 'no loader'}${driverFacts(d)}`]
  return [
    `Tetrad ${d.tetrad} on Node ${d.node}, ${d.platform}`,
    '',
    `cores          ${d.cores}${quota}`,
    `memory         ${bytes(d.memoryBytes)} available`,
    `wasm SIMD      ${d.simd.join(', ')}`,
    `Dawn (WebGPU)  ${gpu.dawnError === undefined ? 'loads' : 'does not load'}`,
    ...vulkan,
    `GPU adapters   ${gpu.adapters.length === 0 ? 'none' : gpu.adapters.length}`,
    ...gpu.adapters.flatMap(formatAdapter),
    '',
    `backend auto   ${auto.backend ?? 'fails'}: ${auto.reason}`,
    `ranks auto     ${auto.ranks}`,
    '',
    ...(d.missing.length === 0
      ? ['Nothing is missing.']
      : [`Missing${auto.backend ? ' (decoding works without)' : ''}:`, ...d.missing.map(({ what, fix }) => `- ${what}. Fix: ${fix}.`)]),
  ].join('\n')
}

/** What the operating system shows of GPUs, whether or not one answers. */
function driverFacts({ gpu }: Diagnosis): string {
  const parts = [
    gpu.deviceFiles.length === 0 ? 'no GPU device files' : gpu.deviceFiles.join(' '),
    ...(gpu.nvidiaDriver === undefined ? [] : [`NVIDIA kernel module ${gpu.nvidiaDriver}`]),
    ...Object.entries(gpu.variables).map(([name, value]) => `${name}=${value}`),
  ]
  return `, ${parts.join(', ')}`
}

function formatAdapter(a: AdapterDescription): string[] {
  const features = a.features.filter((feature) => !TENSOR_CORE_FEATURES.some((name) => name === feature))
  return [
    '',
    `  ${a.name}${a.software ? ' (software)' : ''}`,
    `    vendor         ${[a.vendor, a.architecture].filter(Boolean).join(', ')}`,
    `    driver         ${a.description}`,
    `    tensor cores   ${TENSOR_CORE_FEATURES.map((name) => `${name} ${a.features.includes(name) ? 'yes' : 'no'}`).join(', ')}`,
    ...listed('features', features),
    ...listed(
      'limits',
      Object.entries(a.limits).map(([name, value]) => `${name} ${/Size$/.test(name) && value >= 1024 ? bytes(value) : value}`),
    ),
  ]
}

/** Items in lines of at most 120 columns under a label. */
function listed(label: string, items: readonly string[]): string[] {
  const lines: string[] = []
  for (const item of items) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + item.length < 98) lines[lines.length - 1] = `${last}, ${item}`
    else lines.push(item)
  }
  return lines.map((line, i) => `    ${(i === 0 ? label : '').padEnd(15)}${line}${i < lines.length - 1 ? ',' : ''}`)
}

function bytes(n: number): string {
  const [size, unit] = n >= 2 ** 30 ? [n / 2 ** 30, 'GiB'] : n >= 2 ** 20 ? [n / 2 ** 20, 'MiB'] : [n / 2 ** 10, 'KiB']
  return `${Number(size.toFixed(1))} ${unit}`
}
