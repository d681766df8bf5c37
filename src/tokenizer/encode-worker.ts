// The thread behind Tokenizer.encode: the library encodes on other threads only, and this one is waited for.
import { runAsWorker } from 'synckit'
import { Tokenizer } from 'tokenizers'

export interface EncodeJob {
  /** tokenizer.json. */
  readonly json: string
  readonly text: string
}

let known: { json: string; tokenizer: Tokenizer } | undefined

runAsWorker(async ({ json, text }: EncodeJob) => {
  if (known?.json !== json) known = { json, tokenizer: Tokenizer.fromString(json) }
  return (await known.tokenizer.encode(text, null, { addSpecialTokens: false })).getIds()
})
