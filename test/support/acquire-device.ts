// A process that takes a device of the adapter named by its argument, as a rank does; status 1 and why, where it gets none.
import { GpuContext } from '../../kernels/gpu/context.js'

const [adapter] = process.argv.slice(2)
try {
  const context = await GpuContext.acquire({ adapter, checks: true })
  await context.destroy()
} catch (error) {
  console.log(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
// Without waiting for threads of the driver.
process.exit()
