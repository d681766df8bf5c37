// Structural tags as networks: free text until a trigger, then a tag whose content has a grammar of its own.
import { Network } from './network.js'

export interface TagFormat {
  readonly triggers: readonly string[]
  readonly tags: readonly { readonly begin: string; readonly grammar: string; readonly end: string }[]
  readonly atLeastOne: boolean
  readonly stopAfterFirst: boolean
  /** Without free text: this between tags. */
  readonly separator?: string | undefined
  /** A grammar that the whole text may match instead. */
  readonly otherwise?: string | undefined
}

/** The network, and its first state. Throws Refused. */
export function tagNetwork(format: TagFormat): { readonly network: Network; readonly start: number } {
  const network = new Network()
  const tagged = format.separator === undefined ? triggered(network, format) : separated(network, format, format.separator)
  const start = format.otherwise === undefined ? tagged : either(network, tagged, network.addGrammar(format.otherwise))
  network.finish()
  return { network, start }
}

/** Paths from a state through the tags, without what a trigger has written of their beginnings. */
function addTags(network: Network, tags: TagFormat['tags'], written: string, from: number, to: number): void {
  for (const { begin, grammar, end } of tags) {
    if (!begin.startsWith(written)) continue
    const content = network.addBytes(Buffer.from(begin.slice(written.length)), from)
    const after = network.add()
    network.at(content).rules.push([network.addGrammar(grammar), after])
    network.at(network.addBytes(Buffer.from(end), after)).free.push(to)
  }
}

function either(network: Network, tagged: number, grammar: number): number {
  const start = network.add()
  network.at(start).free.push(tagged)
  network.at(start).rules.push([grammar, endState(network)])
  return start
}

function endState(network: Network): number {
  const state = network.add()
  network.at(state).ends = true
  return state
}

function separated(network: Network, { tags, atLeastOne, stopAfterFirst }: TagFormat, separator: string): number {
  const start = network.add()
  const tag = network.add()
  const after = endState(network)
  network.at(start).free.push(tag)
  network.at(start).ends = !atLeastOne
  addTags(network, tags, '', tag, after)
  if (!stopAfterFirst) network.at(network.addBytes(Buffer.from(separator), after)).free.push(tag)
  return start
}

interface TextNode {
  readonly state: number
  readonly next: Map<number, TextNode>
  /** A trigger that is complete. */
  trigger: string | undefined
  /** The node of the longest end of this one's text. */
  shorter: TextNode | undefined
}

/** Free text is followed by the automaton of Aho and Corasick: each state knows the longest beginning of a trigger that the text ends with. */
function triggered(network: Network, { triggers, tags, atLeastOne, stopAfterFirst }: TagFormat): number {
  const node = (): TextNode => ({ state: endState(network), next: new Map(), trigger: undefined, shorter: undefined })
  const root = node()
  for (const trigger of triggers) {
    let at = root
    for (const byte of Buffer.from(trigger)) {
      const next = at.next.get(byte) ?? node()
      at.next.set(byte, next)
      at = next
    }
    at.trigger = trigger
  }
  const nodes = [root]
  for (const at of nodes)
    for (const [byte, next] of at.next) {
      next.shorter = at === root ? root : follow(root, at.shorter as TextNode, byte)
      next.trigger ??= next.shorter.trigger
      nodes.push(next)
    }
  const done = stopAfterFirst ? endState(network) : root.state
  const opened = new Map(triggers.map((trigger) => [trigger, network.add()]))
  for (const [trigger, state] of opened) addTags(network, tags, trigger, state, done)
  for (const at of nodes) {
    if (at.trigger !== undefined) continue
    for (let byte = 0; byte < 256; byte++) {
      const to = follow(root, at, byte)
      const state = to.trigger === undefined ? to.state : (opened.get(to.trigger) as number)
      const { bytes } = network.at(at.state)
      const last = bytes.at(-1)
      if (last?.[2] === state && last[1] === byte - 1) bytes[bytes.length - 1] = [last[0], byte, state]
      else bytes.push([byte, byte, state])
    }
  }
  if (!atLeastOne) return root.state
  const start = network.add()
  addTags(network, tags, '', start, done)
  return start
}

function follow(root: TextNode, from: TextNode, byte: number): TextNode {
  for (let at: TextNode | undefined = from; at; at = at.shorter) {
    const next = at.next.get(byte)
    if (next) return next
  }
  return root
}
