// A GPU for tests: the software driver that comes with Debian's chromium. scripts/test.mjs names it to the Vulkan loader.
import { spawnSync } from 'node:child_process'
import test, { type TestFn } from 'ava'
import { ROOT } from './fixtures.js'

/** What the tests name the adapter by. */
export const SOFTWARE = { backend: 'gpu', adapter: 'SwiftShader', gpuChecks: true } as const

/** Why there is no software device; undefined: a process got one. Files of a driver do not tell: its loader may be missing. */
const lack = (() => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`${ROOT}dist/test/support/acquire-device.js`, SOFTWARE.adapter], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  return status === 0 ? undefined : stdout.trim() || stderr.trim() || 'the process that asked for a device did not end'
})()
if (lack !== undefined) {
  const remedy = 'Install chromium and libvulkan1, or set VK_ICD_FILENAMES to another software driver.'
  if (process.env.TETRAD_GPU_TESTS === 'require') throw new Error(`TETRAD_GPU_TESTS=require, but ${lack}. ${remedy}`)
  console.log(`GPU tests are skipped: ${lack}. ${remedy}`)
}

/** Whether there is a software device. */
export const hasSoftwareGpu = lack === undefined

/** `test` where a software device answers; elsewhere a skipped test, or with TETRAD_GPU_TESTS=require a failure of the file. */
export const gpuTest: TestFn['serial'] | TestFn['skip'] = hasSoftwareGpu ? test.serial : test.skip
