import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'ava'
import { adapterNames } from '../kernels/gpu/adapter.js'
import { type Diagnosis, doctor } from '../src/index.js'
import { findMissing } from '../src/tools/doctor/missing.js'
import { coreQuota } from '../src/tools/doctor/system.js'
import { ROOT } from './support/fixtures.js'
import { temporary } from './support/models.js'
import { gpuTest } from './support/software-gpu.js'

function run(args: string[], env: NodeJS.ProcessEnv = process.env) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`${ROOT}dist/src/cli.js`, 'doctor', ...args], { encoding: 'utf8', env })
  return { status, stdout, stderr }
}

/** An environment in which the Vulkan loader finds no driver. */
const NO_DRIVER = { ...process.env, VK_DRIVER_FILES: '/nowhere.json', VK_ICD_FILENAMES: undefined, XDG_RUNTIME_DIR: undefined }

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

gpuTest('doctor names the software adapter with its driver, features and limits; auto leaves it alone', async (t) => {
  const d = await doctor()
  const adapter = d.gpu.adapters.find(({ name }) => name.startsWith('SwiftShader'))
  t.like(adapter, { vendor: 'google', software: true })
  t.regex(adapter?.description ?? '', /^SwiftShader driver \d/)
  t.true(adapter?.features.includes('subgroups'))
  t.true((adapter?.limits.maxStorageBufferBindingSize ?? 0) >= 2 ** 27)
  t.is(adapter?.limits.maxStorageBuffersPerShaderStage, 12)
  if (d.gpu.adapters.length === 1) {
    t.is(d.auto.backend, 'wasm')
    t.regex(d.missing.find(({ code }) => code === 'hardware-adapter')?.fix ?? '', /--adapter "SwiftShader/)
  }
})

gpuTest('a named software adapter is what auto chooses, and the text shows what it lacks for tensor cores', async (t) => {
  const { status, stdout } = run(['--adapter', 'SwiftShader'])
  t.is(status, 0)
  t.regex(stdout, /^ {2}SwiftShader Device \(\w+\) \(software\)$/m)
  t.regex(stdout, /^ {4}driver +SwiftShader driver \d/m)
  t.regex(stdout, /shader-f16 no, subgroups yes/)
  t.regex(stdout, /maxBufferSize 1 GiB/)
  t.regex(stdout, /^backend auto +gpu: SwiftShader driver [\d.]+ answers$/m)
  t.regex(stdout, /^- SwiftShader.* has no shader-f16, .*f16 cache.* Fix: /m)
  t.notRegex(stdout, /only adapter is software/)
})

test.serial('--json is one line, and says what the API says', async (t) => {
  const { status, stdout } = run(['--json'])
  t.is(status, 0)
  t.is(stdout.trimEnd().split('\n').length, 1)
  const { memoryBytes, ...told } = JSON.parse(stdout)
  const { memoryBytes: here, ...own } = await doctor()
  t.deepEqual(told, JSON.parse(JSON.stringify(own)))
  t.true(memoryBytes > 0 && here > 0)
  t.is(told.node, process.versions.node)
  t.is(told.cores, availableParallelism())
})

const onLinux = process.platform === 'linux' ? test.serial : test.skip

onLinux('without a driver it still exits with 0, chooses wasm, and says how to mend it', (t) => {
  const { status, stdout } = run([], NO_DRIVER)
  t.is(status, 0)
  t.regex(stdout, /^GPU adapters +none$/m)
  t.regex(stdout, /^backend auto +wasm: /m)
  t.regex(stdout, /^- VK_DRIVER_FILES names \/nowhere\.json, which does not exist\. Fix: .*VK_DRIVER_FILES/m)
  t.regex(stdout, /^- .*GPU.* Fix: .*(libvulkan1|VK_DRIVER_FILES|mesa-vulkan-drivers)/m)
  t.regex(stdout, /^- XDG_RUNTIME_DIR is not set/m)
})

onLinux('an adapter that does not answer: the whole diagnosis, and exit status 1', (t) => {
  const { status, stdout } = run(['--adapter', 'Voodoo', '--json'], NO_DRIVER)
  t.is(status, 1)
  const d = JSON.parse(stdout) as Diagnosis
  t.is(d.auto.backend, undefined)
  t.is(codes(d)[0], 'adapter')
  t.regex(d.missing[0]?.what ?? '', /"Voodoo"/)
})

test.serial('wrong arguments are errors', async (t) => {
  for (const args of [['--adaptor', 'x'], ['more'], ['--adapter', '']]) {
    const { status, stdout, stderr } = run(args)
    t.is(status, 1, args.join(' '))
    t.is(stdout, '')
    t.regex(stderr, /^error/m)
  }
  await t.throwsAsync(doctor({ adaptor: 'x' } as object), { code: 'OPTION_UNKNOWN' })
  await t.throwsAsync(doctor({ adapter: 7 } as object), { code: 'OPTION_INVALID' })
})

test('a machine that lacks nothing has nothing to mend', (t) => {
  t.deepEqual(findMissing(WHOLE), [])
})

test('what the processor and Node lack', (t) => {
  t.like(without({ node: '20.18.3' }), [{ code: 'node', fix: 'install Node 20.19 or newer' }])
  t.deepEqual(without({ node: '20.19.0' }), [])
  t.like(without({ cores: 1 }), [{ code: 'cores' }])
  t.like(without({ simd: ['simd128'] }), [{ code: 'relaxed-simd' }])
  const [quota] = without({ node: '20.19.0', coreQuota: 2.5 })
  t.is(quota?.code, 'core-quota')
  t.regex(quota?.fix ?? '', /--ranks 2.*Node 22/)
  t.deepEqual(without({ coreQuota: 4 }), [])
})

test("NVIDIA's device without its Vulkan driver: the packages, and the variable with the file that is there", (t) => {
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

test('a driver that hangs, and features that an adapter lacks, are told', (t) => {
  t.like(without({}, { unanswered: ['which adapters there are: no answer within 20 s'] }), [{ code: 'driver-answer' }])
  const plain = WHOLE.gpu.adapters.map((a) => ({ ...a, features: ['subgroups'] }))
  const [lacking] = without({}, { adapters: plain })
  t.is(lacking?.code, 'gpu-features')
  t.regex(lacking?.what ?? '', /no shader-f16, no chromium-experimental-subgroup-matrix/)
})

test('Dawn that cannot be loaded is told by its cause, and nothing of drivers with it', (t) => {
  const causes: [string, RegExp][] = [
    ["/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by /x/dawn.node)", /needs glibc 2\.34/],
    ['Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by /x/dawn.node)', /musl/],
    ["Cannot find module '/x/webgpu/dist/linux-riscv64/dawn.node'", /no binary for linux-x64/],
    ["Cannot find package 'webgpu' imported from /x/context.js", /not installed/],
    ['libstdc++.so.6: cannot open shared object file: No such file or directory', /can't be loaded \(libstdc\+\+/],
  ]
  for (const [dawnError, what] of causes) {
    const found = without({ auto: { backend: 'wasm', reason: '', ranks: 4 } }, { dawnError, adapters: [], vulkanLoader: false })
    t.like(found, [{ code: 'dawn' }])
    t.regex(found[0]?.what ?? '', what)
    t.regex(found[0]?.what ?? '', /wasm is used$/)
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
