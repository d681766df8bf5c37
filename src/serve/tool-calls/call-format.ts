// A chat's answer with the calls that are in its text.
import { randomUUID } from 'node:crypto'
import type { Completion } from '../../engine/generation.js'
import type { Format } from '../choices-writer.js'
import { finishReason } from '../openai-format.js'
import type { CallForm } from './call-form.js'
import { CallParser, type CallPart } from './call-parser.js'

/** plain: the format of answers without calls. */
export function withCalls(plain: Format, form: CallForm, names: readonly string[]): Format {
  const parsers = new Map<number, CallParser>()
  const parserOf = (index: number) => {
    const parser = parsers.get(index) ?? new CallParser(form, names)
    parsers.set(index, parser)
    return parser
  }
  return {
    ...plain,
    choice: async (index, completion) => {
      const parser = new CallParser(form, names)
      const { content, calls } = gathered([...parser.push(completion.text), ...parser.end()])
      const message = {
        role: 'assistant',
        content: content === '' && calls.length > 0 ? null : content,
        refusal: null,
        ...(calls.length > 0 && { tool_calls: calls }),
      }
      return { ...(await plain.choice(index, completion)), message, finish_reason: reasonOf(parser, completion) }
    },
    delta: (index, text, logprobs, first) => {
      const parts = parserOf(index).push(text)
      if (parts.length === 0 && !first && !logprobs) return []
      const [base] = plain.delta(index, '', logprobs, first)
      const deltas = parts.length === 0 ? [{ ...(first && { content: '' }) }] : parts.map(written)
      return deltas.map((delta, i) => ({
        ...(i === 0 ? base : plain.delta(index, '', undefined, false)[0]),
        delta: { ...(first && i === 0 && { role: 'assistant' }), ...delta },
      }))
    },
    end: (index, completion) => {
      const parser = parserOf(index)
      const rest = parser.end().map((part) => ({ ...plain.delta(index, '', undefined, false)[0], delta: written(part) }))
      const ends = plain.end(index, completion).map((end) => ({ ...end, finish_reason: reasonOf(parser, completion) }))
      return [...rest, ...ends]
    },
  }
}

function reasonOf(parser: CallParser, { finishReason: reason }: Completion): string {
  const known = finishReason(reason)
  return known === 'stop' && parser.called ? 'tool_calls' : known
}

interface Call {
  readonly id: string
  readonly type: 'function'
  readonly function: { readonly name: string; arguments: string }
}

function gathered(parts: readonly CallPart[]): { content: string; calls: readonly Call[] } {
  let content = ''
  const calls: Call[] = []
  for (const part of parts) {
    if ('content' in part) content += part.content
    else {
      if (part.name !== undefined) calls.push({ id: newId(), type: 'function', function: { name: part.name, arguments: '' } })
      const call = calls[part.index]
      if (call) call.function.arguments += part.arguments
    }
  }
  return { content, calls }
}

/** A call's first piece has its id and name. */
function written(part: CallPart): object {
  if ('content' in part) return part
  const { index, name, arguments: given } = part
  if (name === undefined) return { tool_calls: [{ index, function: { arguments: given } }] }
  return { tool_calls: [{ index, id: newId(), type: 'function', function: { name, arguments: given } }] }
}

function newId(): string {
  return `call_${randomUUID().replaceAll('-', '')}`
}
