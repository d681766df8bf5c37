// Runs the tests, with the software GPU driver of Debian's chromium where there is one. The Vulkan loader reads the environment that
// the process was started with, so it can't be set in a test. Arguments go to ava.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const DRIVER = '/usr/lib/chromium/vk_swiftshader_icd.json'
const env = { XDG_RUNTIME_DIR: '/tmp', ...process.env }
if (env.VK_ICD_FILENAMES === undefined && existsSync(DRIVER)) env.VK_ICD_FILENAMES = DRIVER
const { status } = spawnSync(process.execPath, ['node_modules/ava/entrypoints/cli.mjs', ...process.argv.slice(2)], { stdio: 'inherit', env })
process.exit(status ?? 1)
