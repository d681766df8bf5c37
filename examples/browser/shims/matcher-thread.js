// Grammars are matched in a worker thread of Node. No page asks for one yet.
export class MatcherThread {
  constructor() {
    throw new Error('output with a constraint is not supported in a browser')
  }
}
