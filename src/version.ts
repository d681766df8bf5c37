// The package's version, from its package.json.
import { readFileSync } from 'node:fs'
import { assetUrl } from './assets.js'

export const VERSION: string = (JSON.parse(readFileSync(assetUrl('package.json'), 'utf8')) as { version: string }).version
