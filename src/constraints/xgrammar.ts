// XGrammar in WebAssembly, as this package uses it. Only for worker threads: its bundle expects CommonJS's globals and writes its own, and what it
// cannot do ends in an abort, after which its memory cannot be trusted.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

interface Disposable {
  dispose(): void
}

export type CompiledGrammar = Disposable

export interface GrammarMatcher extends Disposable {
  acceptToken(token: number): boolean
  /** One bit a token, [ceil(vocab / 32)]. */
  getNextTokenBitmask(): Promise<Int32Array>
  isTerminated(): boolean
}

export interface GrammarCompiler {
  compileGrammar(grammar: string): Promise<CompiledGrammar>
  compileStructuralTag(tag: string): Promise<CompiledGrammar>
}

export interface XGrammar {
  readonly Grammar: { fromEBNF(grammar: string): Promise<Disposable> }
  readonly TokenizerInfo: {
    createTokenizerInfo(vocab: readonly string[], type: 'raw', prefixSpace: false, size: number, stopIds: readonly number[]): Promise<Disposable>
  }
  readonly GrammarCompiler: { createGrammarCompiler(info: Disposable, cache: boolean): Promise<GrammarCompiler> }
  readonly GrammarMatcher: { createGrammarMatcher(grammar: CompiledGrammar, stopIds: readonly number[]): Promise<GrammarMatcher> }
}

/** Its last message on the console: the reason of an abort. */
let lastMessage = ''

export async function loadXGrammar(): Promise<XGrammar> {
  console.error = (...parts: unknown[]) => {
    const text = parts.join(' ')
    // The first line of a failure says why; "Aborted()" follows.
    if (!text.startsWith('Aborted(')) lastMessage = text
  }
  const require = createRequire(import.meta.url)
  const file = require.resolve('@mlc-ai/web-xgrammar')
  const globals = globalThis as unknown as { require?: unknown; __filename?: string; xgrammar?: XGrammar }
  globals.require = require
  globals.__filename = file
  await import(pathToFileURL(file).href)
  if (!globals.xgrammar) throw new Error('@mlc-ai/web-xgrammar did not load')
  return globals.xgrammar
}

/** What an error of the library says, without paths of its build. */
export function reasonOf(error: unknown): string {
  const said = lastMessage.replace(/^\[FATAL\] \S+: /, '')
  lastMessage = ''
  return said === '' ? (error instanceof Error ? error.message : String(error)) : said
}
