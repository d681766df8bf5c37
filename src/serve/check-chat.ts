// Another endpoint's body as a chat: checked like one that a client sends, with errors in the endpoint's own terms.
import type { FastifyRequest } from 'fastify'
import { HttpError } from './http-error.js'
import { withoutNeutralFields } from './neutral-fields.js'
import { CHAT_SCHEMA, type ChatBody } from './request-schema.js'
import { validationError } from './validation-error.js'

/**
 * Runs `answer` with the chat. names: a chat's fields, and those of the endpoint that they are made from; of a nested field the longest name
 * that begins its path counts. Rejects with HttpError.
 */
export async function checkChat(
  request: FastifyRequest,
  chat: unknown,
  names: Readonly<Record<string, string>>,
  answer: (chat: ChatBody) => Promise<void>,
): Promise<void> {
  const kept = withoutNeutralFields('chat', chat)
  try {
    const validate = request.compileValidationSchema(CHAT_SCHEMA)
    if (!validate(kept)) throw validationError({ validation: validate.errors }, kept)
    await answer(kept as ChatBody)
  } catch (error) {
    throw renamed(error, names)
  }
}

/** A chat's names of the fields of tools, where an endpoint has a tool's fields by themselves. schema: what it adds for its parameters. */
export function toolNames(tools: readonly unknown[] = [], schema: '' | '.input_schema'): Record<string, string> {
  const names = tools.flatMap((_, i) => [
    [`tools.${i}.function`, `tools.${i}`],
    ...(schema === '' ? [] : [[`tools.${i}.function.parameters`, `tools.${i}${schema}`]]),
  ])
  return Object.fromEntries(names)
}

function renamed(error: unknown, names: Readonly<Record<string, string>>): unknown {
  if (!(error instanceof HttpError) || error.param === null) return error
  const { param } = error
  const known = Object.keys(names).filter((name) => param === name || param.startsWith(`${name}.`))
  const longest = known.sort((a, b) => b.length - a.length)[0]
  if (longest === undefined) return error
  const own = names[longest] + param.slice(longest.length)
  const { status, type, code, retryAfterMs, cause } = error
  return new HttpError(status, type, error.message.replaceAll(param, own), {
    param: own,
    ...(code !== null && { code }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    cause,
  })
}
