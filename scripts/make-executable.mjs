// npx runs the built bin as it lies, so it must be executable.
import { chmodSync } from 'node:fs'

chmodSync('dist/src/cli.js', 0o755)
