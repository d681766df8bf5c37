// The package's version, and the oldest Node that it runs on, from its package.json.
import { readFileSync } from 'node:fs'
import { assetUrl } from './assets.js'

const { version, engines } = JSON.parse(readFileSync(assetUrl('package.json'), 'utf8')) as { version: string; engines: { node: string } }

export const VERSION: string = version

/** Such as 20.19. */
export const OLDEST_NODE: string = engines.node.replace('>=', '')
