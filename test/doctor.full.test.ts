// tetrad doctor as a process, on this machine.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import test from 'ava'
import { type Diagnosis, doctor } from '../src/index.js'
import { ROOT } from './support/fixtures.js'
import { gpuTest } from './support/software-gpu.js'

function run(args: string[], env: NodeJS.ProcessEnv = process.env) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`${ROOT}dist/src/cli.js`, 'doctor', ...args], { encoding: 'utf8', env })
  return { status, stdout, stderr }
}

/** An environment in which the Vulkan loader finds no driver. */
const NO_DRIVER = { ...process.env, VK_DRIVER_FILES: '/nowhere.json', VK_ICD_FILENAMES: undefined, XDG_RUNTIME_DIR: undefined }

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

onLinux('without a driver doctor exits with 0, chooses wasm, and says how to fix it', (t) => {
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
  t.is(d.missing[0]?.code, 'adapter')
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
