// How a model writes calls of functions in its text. The model's template decides: it shows the functions, and earlier calls, in one form.
import type { ChatTemplate } from '../../tokenizer/chat-template.js'

export interface CallForm {
  /** Begins a call, and only a call, where functions may be called. */
  readonly trigger: string
  /** What comes before the arguments, which are a JSON object. Begins with the trigger. */
  begin(name: string): string
  /** What comes after the arguments. */
  readonly end: string
  /** A line break before a call is part of its form. */
  readonly ownLine: boolean
  /** One answer may have several. */
  readonly parallel: boolean
  /** The model's template takes `tools` and messages with calls; otherwise they are written into the messages' texts. */
  readonly native: boolean
}

/** That of Hermes and Qwen. */
const TAGGED = {
  trigger: '<tool_call>',
  begin: (name: string) => `<tool_call>\n{"name": "${name}", "arguments": `,
  end: '}\n</tool_call>',
  ownLine: true,
  parallel: true,
}

/** That of Llama 3.1 to 3.3, whose templates take one call in a message. */
const BARE = {
  trigger: '{"name": "',
  begin: (name: string) => `{"name": "${name}", "parameters": `,
  end: '}',
  ownLine: false,
  parallel: false,
}

export function callFormOf({ source }: Pick<ChatTemplate, 'source'>): CallForm {
  const text = source?.source ?? ''
  if (!/\btools\b/.test(text)) return { ...TAGGED, native: false }
  if (text.includes('<tool_call>') && /"arguments\\?"/.test(text)) return { ...TAGGED, native: true }
  if (!text.includes('<tool_call>') && text.includes('{"name": ') && text.includes('"parameters": ')) return { ...BARE, native: true }
  // A template with a form that is not known here.
  return { ...TAGGED, native: false }
}
