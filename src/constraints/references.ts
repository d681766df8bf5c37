// References within a schema: JSON pointers from its root.
import type { JsonObject, Schema } from './schema-keywords.js'
import { Unsupported } from './unsupported.js'

/** Throws Unsupported for one that leads elsewhere or nowhere. */
export function resolveReference(root: Schema, reference: string): Schema {
  if (reference !== '#' && !reference.startsWith('#/')) throw new Unsupported('$ref', `${JSON.stringify(reference)} leads out of the schema`)
  let found: unknown = root
  for (const part of reference.split('/').slice(1)) {
    const name = decoded(part).replaceAll('~1', '/').replaceAll('~0', '~')
    found = typeof found === 'object' && found !== null && Object.hasOwn(found, name) ? (found as JsonObject)[name] : undefined
  }
  if (typeof found === 'boolean' || (typeof found === 'object' && found !== null && !Array.isArray(found))) return found as Schema
  throw new Unsupported('$ref', `${JSON.stringify(reference)} leads to no schema`)
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
