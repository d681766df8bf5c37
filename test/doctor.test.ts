import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { adapterNames } from '../kernels/gpu/adapter.js'
import type { Diagnosis } from '../src/index.js'
import { findMissing } from '../src/tools/doctor/findings.js'
import { coreQuota } from '../src/tools/doctor/system.js'
import { temporary } from './support/models.js'

const codes = (d: Pick<Diagnosis, 'missing'>) => d.missing.map(({ code }) => code)

/** A machine that lacks nothing: each test takes something away. */
const WHOLE: Omit<Diagnosis, 'missing'> = {
  tetrad: '0.1.0',
  node: '22.4.0',
  platform: 'linux-x64',
  cores: 8,
  memoryBytes: 2 ** 34,
  simd: ['simd128', 'relaxed'],
  gpu: {
    deviceFiles: ['/dev/dri/renderD128', '/dev/nvidiactl'],
    deniedFiles: [],
    vulkanLoader: true,
    icdFiles: ['/etc/vulkan/icd.d/nvidia_icd.json'],
    variables: { XDG_RUNTIME_DIR: '/run/user/1000' },
    absentFiles: [],
    adapters: [
      {
        name: 'NVIDIA H100 80GB HBM3',
        vendor: 'nvidia',
        architecture: 'hopper',
        device: '0x2330',
        description: 'NVIDIA: 570.86.15',
        software: false,
        tensorCores: true,
        workgroupStorage: 49152,
        workgroupThreads: 1024,
        largestBuffer: 2 ** 30,
        features: ['chromium-experimental-subgroup-matrix', 'shader-f16', 'subgroups'],
        limits: { maxBufferSize: 2 ** 32 },
      },
    ],
    unanswered: [],
  },
  auto: { backend: 'gpu', reason: 'NVIDIA: 570.86.15 answers', ranks: 4 },
}

const without = (change: Partial<typeof WHOLE>, gpu: Partial<Diagnosis['gpu']> = {}) =>
  findMissing({ ...WHOLE, ...change, gpu: { ...WHOLE.gpu, ...gpu } })

test('a complete machine gets no advice', (t) => {
  t.deepEqual(findMissing(WHOLE), [])
})

test('an old Node, one core, no relaxed SIMD and a core quota are reported', (t) => {
  t.like(without({ node: '20.18.3' }), [{ code: 'node', fix: 'install Node 20.19 or newer' }])
  t.deepEqual(without({ node: '20.19.0' }), [])
  t.like(without({ cores: 1 }), [{ code: 'cores' }])
  t.like(without({ simd: ['simd128'] }), [{ code: 'relaxed-simd' }])
  const [quota] = without({ node: '20.19.0', coreQuota: 2.5 })
  t.is(quota?.code, 'core-quota')
  t.regex(quota?.fix ?? '', /--ranks 2.*Node 22/)
  t.deepEqual(without({ coreQuota: 4 }), [])
})

test('an NVIDIA device without its Vulkan driver: names the packages and the variable with the path of the driver file', (t) => {
  const found = without({}, { adapters: [] })
  t.like(found, [{ code: 'nvidia-driver' }])
  t.regex(found[0]?.fix ?? '', /libvulkan1 libegl1 .*VK_DRIVER_FILES=\/etc\/vulkan\/icd\.d\/nvidia_icd\.json$/)
  // Another vendor's adapter does not hide it.
  const intel = { ...WHOLE.gpu.adapters[0], name: 'Intel Arc', vendor: 'intel' } as Diagnosis['gpu']['adapters'][number]
  t.like(without({}, { adapters: [intel], icdFiles: [] }), [{ code: 'nvidia-driver' }])
})

test('no loader, no permission, no Mesa driver, no device', (t) => {
  const dri = ['/dev/dri/renderD128']
  const [loader] = without({}, { adapters: [], vulkanLoader: false, deviceFiles: dri })
  t.is(loader?.code, 'vulkan-loader')
  t.regex(loader?.fix ?? '', /libvulkan1 .*vulkan-loader/)
  t.deepEqual(codes({ missing: without({}, { adapters: [], deviceFiles: dri, deniedFiles: dri }) }), ['device-permission', 'gpu-driver'])
  t.deepEqual(codes({ missing: without({}, { adapters: [], deviceFiles: [] }) }), ['gpu-device'])
})

test('a driver that hangs and missing features of an adapter are reported', (t) => {
  t.like(without({}, { unanswered: ['which adapters there are: no answer within 20 s'] }), [{ code: 'driver-answer' }])
  const plain = WHOLE.gpu.adapters.map((a) => ({ ...a, features: ['subgroups'] }))
  const [lacking] = without({}, { adapters: plain })
  t.is(lacking?.code, 'gpu-features')
  t.regex(lacking?.what ?? '', /no shader-f16, no chromium-experimental-subgroup-matrix/)
})

test('if Dawn cannot be loaded, doctor reports the cause and gives no advice about drivers', (t) => {
  const causes: [string, RegExp][] = [
    ["/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by /x/dawn.node)", /needs glibc 2\.34/],
    ['Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by /x/dawn.node)', /musl/],
    ["Cannot find module '/x/webgpu/dist/linux-riscv64/dawn.node'", /no binary for linux-x64/],
    ["Cannot find package 'webgpu' imported from /x/context.js", /not installed/],
    ['libstdc++.so.6: cannot open shared object file: No such file or directory', /cannot be loaded \(libstdc\+\+/],
  ]
  for (const [dawnError, what] of causes) {
    const found = without({ auto: { backend: 'wasm', reason: '', ranks: 4 } }, { dawnError, adapters: [], vulkanLoader: false })
    t.like(found, [{ code: 'dawn' }])
    t.regex(found[0]?.what ?? '', what)
    t.regex(found[0]?.what ?? '', /the wasm backend is used$/)
  }
})

test("names of adapters are read from Dawn's message: each once, in order, without null and OpenGL", (t) => {
  const message = `no suitable backends found
Available adapters:
 * backend: 'null', name: 'Null backend'
 * backend: 'vulkan', name: 'NVIDIA H100 80GB HBM3'
 * backend: 'vulkan', name: 'NVIDIA H100 80GB HBM3'
 * backend: 'opengles', name: 'NVIDIA H100 80GB HBM3/PCIe/SSE2'
 * backend: 'vulkan', name: 'Maker's (odd) card'`
  t.deepEqual(adapterNames(message), ['NVIDIA H100 80GB HBM3', "Maker's (odd) card"])
  t.deepEqual(adapterNames('the driver is gone'), [])
})

test('the core quota is the least of all cgroups above the process, in both versions', (t) => {
  const root = temporary(t)
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  t.is(coreQuota(root), undefined)
  write('proc/self/cgroup', '0::/a/b\n')
  write('sys/fs/cgroup/a/b/cpu.max', 'max 100000\n')
  t.is(coreQuota(root), undefined)
  write('sys/fs/cgroup/a/cpu.max', '150000 100000\n')
  t.is(coreQuota(root), 1.5)
  write('proc/self/cgroup', '4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n')
  write('sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us', '-1\n')
  write('sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us', '100000\n')
  t.is(coreQuota(root), undefined)
  // A container sees its own cgroup as the root, whatever its path is outside.
  write('sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us', '300000\n')
  write('sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us', '100000\n')
  t.is(coreQuota(root), 3)
})
