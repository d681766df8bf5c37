// Calls of functions in a text that comes in pieces. What is no call is content: nothing of the text gets lost but the form of calls itself.
// Where the pieces are cut makes no difference to what is found.
import type { CallForm } from './call-form.js'

export type CallPart =
  | { readonly content: string }
  /** index: of the call in the answer. name: with the first part of a call. */
  | { readonly index: number; readonly name?: string; readonly arguments: string }

export class CallParser {
  readonly #form: CallForm
  readonly #begins: readonly (readonly [begin: string, name: string])[]
  /** Read, and not decided yet. */
  #held = ''
  #state: 'text' | 'arguments' | 'end' = 'text'
  #calls = 0
  // Of the arguments that are being read.
  #depth = 0
  #inString = false
  #escaped = false

  constructor(form: CallForm, names: readonly string[]) {
    this.#form = form
    this.#begins = names.map((name) => [form.begin(name), name])
  }

  /** There are calls, and the last one is whole. */
  get called(): boolean {
    return this.#calls > 0 && this.#state === 'text'
  }

  push(text: string): CallPart[] {
    this.#held += text
    const parts: CallPart[] = []
    while (this.#step(parts)) {}
    return parts
  }

  /** What is left at the end of the text. */
  end(): CallPart[] {
    const rest = this.#held
    this.#held = ''
    return this.#state === 'text' && rest !== '' ? [{ content: rest }] : []
  }

  /** Whether there may be more to find. */
  #step(parts: CallPart[]): boolean {
    if (this.#state === 'text') return this.#text(parts)
    if (this.#state === 'arguments') return this.#arguments(parts)
    const { end } = this.#form
    if (this.#held.length < end.length && end.startsWith(this.#held)) return false
    if (this.#held.startsWith(end)) this.#held = this.#held.slice(end.length)
    this.#state = 'text'
    return true
  }

  #text(parts: CallPart[]): boolean {
    const { trigger, ownLine } = this.#form
    const at = this.#held.indexOf(trigger)
    if (at < 0) {
      this.#content(parts, this.#held.length - overlap(this.#held, ownLine ? `\n${trigger}` : trigger, trigger))
      return false
    }
    const rest = this.#held.slice(at)
    const before = ownLine && this.#held[at - 1] === '\n' ? at - 1 : at
    const found = this.#begins.find(([begin]) => rest.startsWith(begin))
    if (found) {
      this.#content(parts, before)
      const [begin, name] = found
      this.#held = rest.slice(begin.length)
      parts.push({ index: this.#calls++, name, arguments: '' })
      this.#state = 'arguments'
      this.#depth = 0
      return true
    }
    if (this.#begins.some(([begin]) => begin.startsWith(rest))) {
      this.#content(parts, before)
      return false
    }
    this.#content(parts, at + trigger.length)
    return true
  }

  #arguments(parts: CallPart[]): boolean {
    const length = this.#argumentsLength()
    const read = this.#held.slice(0, length)
    this.#held = this.#held.slice(read.length)
    if (read !== '') parts.push({ index: this.#calls - 1, arguments: read })
    if (length === undefined) return false
    this.#state = 'end'
    return true
  }

  /** Up to the end of the object; undefined: it does not end here. */
  #argumentsLength(): number | undefined {
    for (let i = 0; i < this.#held.length; i++) {
      const char = this.#held[i]
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false
        else if (char === '\\') this.#escaped = true
        else if (char === '"') this.#inString = false
      } else if (char === '"') this.#inString = true
      else if (char === '{' || char === '[') this.#depth++
      else if ((char === '}' || char === ']') && --this.#depth <= 0) return i + 1
    }
    return undefined
  }

  #content(parts: CallPart[], length: number): void {
    const content = this.#held.slice(0, length)
    this.#held = this.#held.slice(length)
    if (content !== '') parts.push({ content })
  }
}

/** Characters at the end of a text with which one of the markers may begin. */
function overlap(text: string, ...markers: readonly string[]): number {
  const most = Math.min(text.length, Math.max(...markers.map((marker) => marker.length)))
  for (let length = most; length > 0; length--) {
    const tail = text.slice(-length)
    if (markers.some((marker) => marker.startsWith(tail))) return length
  }
  return 0
}
