// What a JSON schema found wrong with a body, as an error that names the client's field.
import { badRequest, type HttpError } from './http-error.js'

interface Violation {
  readonly keyword: string
  readonly instancePath: string
  readonly params: Readonly<Record<string, unknown>>
  readonly message?: string
}

/** undefined: the error is not of a schema. */
export function validationError(error: unknown, body: unknown): HttpError | undefined {
  const violations = (error as { validation?: readonly Violation[] }).validation ?? []
  const [first] = violations
  if (!first) return undefined
  const path = first.instancePath.slice(1).replaceAll('/', '.')
  const field = (name: unknown) => [path, String(name)].filter(Boolean).join('.')
  switch (first.keyword) {
    case 'additionalProperties': {
      const name = field(first.params.additionalProperty)
      return badRequest(`${name} is not supported.`, name, 'unsupported_parameter')
    }
    case 'required': {
      const name = field(first.params.missingProperty)
      return badRequest(`${name} is missing.`, name, 'missing_required_parameter')
    }
    case 'const':
      return badRequest(
        `${path} ${shown(first.instancePath, body)} is not supported. It must be ${JSON.stringify(first.params.allowedValue)}.`,
        path,
        'invalid_value',
      )
    case 'enum':
      return badRequest(`${path} must be one of ${(first.params.allowedValues as readonly unknown[]).join(', ')}.`, path, 'invalid_value')
  }
  const part = unsupportedPart(first.instancePath, body)
  if (part) return part
  // The first violation of a choice of types names only the first type.
  const types = violations
    .filter(({ keyword, instancePath }) => keyword === 'type' && instancePath === first.instancePath)
    .map(({ params }) => String(params.type))
  const message = types.length > 1 ? `must be ${[...new Set(types)].join(' or ')}` : (first.message ?? 'is invalid')
  return badRequest(`${path === '' ? 'The body' : path} ${message}.`, path, 'invalid_value')
}

/** A message whose content has parts that are not text: pictures, sound, files. */
function unsupportedPart(pointer: string, body: unknown): HttpError | undefined {
  const content = valueAt(pointer, body)
  if (!/^\/messages\/\d+\/content$/.test(pointer) || !Array.isArray(content)) return undefined
  const at = content.findIndex((part: { type?: unknown } | null) => part?.type !== 'text')
  if (at < 0) return undefined
  const path = `${pointer.slice(1).replaceAll('/', '.')}.${at}`
  const type = (content[at] as { type?: unknown } | null)?.type
  return badRequest(`${path}: parts of type ${JSON.stringify(type) ?? 'none'} are not supported. Only text is.`, path, 'unsupported_parameter')
}

function shown(pointer: string, body: unknown): string {
  return (JSON.stringify(valueAt(pointer, body)) ?? '').slice(0, 60)
}

/** The value at a JSON pointer. */
function valueAt(pointer: string, body: unknown): unknown {
  return pointer
    .split('/')
    .slice(1)
    .reduce<unknown>((value, name) => (value as Record<string, unknown> | null | undefined)?.[name], body)
}
