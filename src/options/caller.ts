// How a caller spells an option: topP in JavaScript, --top-p on the command line, top_p over HTTP. Messages use the caller's spelling.

export type Caller = 'api' | 'cli' | 'http'

/** `name`: of the option in the API. */
export function spelled(name: string, caller: Caller): string {
  if (caller === 'cli') return flagName(name)
  return caller === 'http' ? snakeCase(name) : name
}

/** maxTokens -> --max-tokens. */
export function flagName(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

/** maxTokens -> max_tokens. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** A part of a nested option, for example the ngram of speculate. */
export function spelledPart(option: string, part: string, caller: Caller): string {
  return caller === 'cli' ? `${part} of ${option}` : `${option}.${part}`
}
