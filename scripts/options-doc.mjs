// Writes src/options/public-types.ts, docs/options.md and docs/sampling.md from the built option tables, or with --check fails if one
// is out of date.
import { readFileSync, writeFileSync } from 'node:fs'
import { optionsPage, publicTypes, samplingPage } from '../dist/src/options/docs-pages.js'

const files = { 'src/options/public-types.ts': publicTypes(), 'docs/options.md': optionsPage(), 'docs/sampling.md': samplingPage() }
for (const [path, text] of Object.entries(files)) {
  if (!process.argv.includes('--check')) writeFileSync(path, text)
  else if (readFileSync(path, 'utf8') !== text) throw new Error(`${path} is out of date: run npm run build:ts && npm run docs:options`)
}
