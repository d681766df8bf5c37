// The matrix products of a step by PyTorch, on the same card, where Python with torch and CUDA is on the machine.
import { spawn } from 'node:child_process'
import type { ProductWork } from '../model/product-work.js'

export interface TorchProducts {
  readonly version: string
  /** TFLOP/s of a product of 8192 x 8192 matrices of bfloat16. */
  readonly tflops: number
  /** Milliseconds of all products of a step of so many rows; without the output projection, and of that alone. */
  readonly steps: readonly { readonly rows: number; readonly layersMs: number; readonly headMs: number }[]
}

/** How long Python may take. */
const DEADLINE_MS = 180_000

/** All matrices of all layers once, in a CUDA graph; weights differ from layer to layer, so none stays in the card's cache. */
const SCRIPT = `
import json, sys, torch
work = json.load(sys.stdin)
def normal(r, c): return torch.randn(r, c, device='cuda', dtype=torch.bfloat16)
def timed(run, n):
    run(); torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph): run()
    for _ in range(3): graph.replay()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(n): graph.replay()
    end.record(); torch.cuda.synchronize()
    return start.elapsed_time(end) / n
layers = [[normal(r, c) for r, c in work['layer']] for _ in range(work['layers'])]
head = normal(*work['head'])
steps = []
for rows in work['rows']:
    xs = [normal(rows, c) for _, c in work['layer']]
    def products():
        for layer in layers:
            for w, x in zip(layer, xs): torch.matmul(x, w.t())
    x = normal(rows, work['head'][1])
    steps.append({'rows': rows, 'layersMs': timed(products, 10), 'headMs': timed(lambda: torch.matmul(x, head.t()), 10)})
a, b = normal(8192, 8192), normal(8192, 8192)
print(json.dumps({'version': torch.__version__, 'tflops': 2 * 8192**3 / timed(lambda: a @ b, 10) / 1e9, 'steps': steps}))
`

/** Returns why there is no measurement as a string. */
export async function torchProducts({ layer, head, layers }: ProductWork, rows: readonly number[]): Promise<TorchProducts | string> {
  const child = spawn('python3', ['-c', SCRIPT], { stdio: ['pipe', 'pipe', 'pipe'], timeout: DEADLINE_MS, killSignal: 'SIGKILL' })
  let output = ''
  let errors = ''
  child.stdout.on('data', (data) => {
    output += data
  })
  child.stderr.on('data', (data) => {
    errors += data
  })
  // A process that ended early does not read.
  child.stdin.on('error', () => {})
  child.stdin.end(JSON.stringify({ layer, head, layers, rows }))
  const code = await new Promise<number | string | null>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', resolve)
  })
  if (code === 0) return JSON.parse(output) as TorchProducts
  return errors.trim().split('\n').at(-1) || `python3: ${code}`
}
