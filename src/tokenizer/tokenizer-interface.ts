// What the rest of Tetrad knows of a tokenizer.

export interface Tokenizer {
  /** The library that does the work: 'tokenizers' (Rust), or '@huggingface/tokenizers' where the first does not load. */
  readonly library: 'tokenizers' | '@huggingface/tokenizers'
  /**
   * Token ids of a text, without the ids that the tokenizer would add around it. Control tokens in the text become their ids, as
   * in the reference. Blocks this thread: for tools. A server uses encodeAsync.
   */
  encode(text: string): number[]
  /** As encode, on another thread. */
  encodeAsync(text: string): Promise<number[]>
  /** As encodeAsync; control tokens that have the mark inside stay text. */
  encodeMarked(text: MarkedText): Promise<number[]>
  /** Text of token ids; special tokens are left out. */
  decode(ids: readonly number[]): string
  /** What a token adds to a text, in bytes: part of a character, maybe. Empty for special tokens and ids that it does not know. */
  bytesOf(id: number): Uint8Array
  /** Id of a control token (a special added token) by its text. */
  controlId(text: string): number | undefined
  readonly controlTokens: readonly string[]
  /** Id that begins a document; undefined: the tokenizer names none. */
  readonly bosId: number | undefined
  /** A text prompt begins with bosId unless the caller says otherwise. */
  readonly addsBos: boolean
  /** Id of a token by its text, added tokens included. */
  idOf(token: string): number | undefined
  /** Id of `<|endoftext|>`, if the vocabulary has it. */
  readonly endOfText: number | undefined
  /** No text of more bytes (UTF-8) than this times n has n tokens or fewer. Infinity: no bound is known. */
  readonly maxBytesPerToken: number
}

/** A text of which some control tokens are meant as text: those have the mark inside, and the mark is no part of the text. */
export interface MarkedText {
  readonly text: string
  /** Something that nobody can guess. */
  readonly mark: string
}
