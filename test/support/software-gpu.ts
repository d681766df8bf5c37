// A GPU for tests: the software driver that comes with Debian's chromium.
import test, { type TestFn } from 'ava'

/** What the tests name the adapter by. */
export const SOFTWARE = { backend: 'gpu', adapter: 'SwiftShader', gpuChecks: true } as const

const found = process.env.VK_ICD_FILENAMES !== undefined

/** `test` where there is a software driver (scripts/test.mjs finds it); a skipped test elsewhere, unless TETRAD_GPU_TESTS=require. */
export const gpuTest: TestFn['serial'] | TestFn['skip'] = found || process.env.TETRAD_GPU_TESTS === 'require' ? test.serial : test.skip
if (!found) console.log('GPU tests are skipped: there is no software driver. Install chromium, or set VK_ICD_FILENAMES.')
