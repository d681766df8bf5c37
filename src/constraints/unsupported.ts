// What a constraint asks for and cannot be done: thrown by the converters, and made an error of the caller's option where the option is known.

export class Unsupported extends Error {
  /** The keyword or construct that cannot be done. */
  readonly keyword: string

  constructor(keyword: string, why: string) {
    super(`${keyword}: ${why}`)
    this.keyword = keyword
  }
}

/** A grammar that cannot be read, or that is too costly to follow. */
export class Refused extends Error {}
