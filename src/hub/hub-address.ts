// hf:owner/name[@revision][/folder]: a model in a repository of the Hugging Face Hub.
import { invalidOption, show } from '../options/check.js'

export interface HubAddress {
  /** As it was given. */
  readonly text: string
  /** owner/name. */
  readonly repo: string
  /** Branch, tag or commit. */
  readonly revision: string
  /** Folder in the repository that holds the model, without slashes at its ends; '' is the root. */
  readonly folder: string
  /** Name of a .gguf file in the folder that is the model. */
  readonly file: string | undefined
}

const PREFIX = 'hf:'
const DEFAULT_REVISION = 'main'
const NAME = /^(?!.*(?:--|\.\.))[A-Za-z0-9_][\w.-]{0,95}$/
const REVISION = /^(?!.*\.\.)\w[\w./-]{0,199}$/
/** No separators, no drives, no characters that end or change a URL's path. */
const SEGMENT = /^(?!\.{1,2}$)[\w.,+=@ ()-]{1,200}$/

export function isHubAddress(model: unknown): model is string {
  return typeof model === 'string' && model.startsWith(PREFIX)
}

/** Throws OptionError OPTION_INVALID. A slash in a revision is written %2F. */
export function parseHubAddress(text: unknown): HubAddress {
  if (!isHubAddress(text)) throw invalid(text, 'the address')
  const [owner = '', named = '', ...folders] = text.slice(PREFIX.length).replace(/\/$/, '').split('/')
  const at = named.indexOf('@')
  const name = at < 0 ? named : named.slice(0, at)
  const revision = at < 0 ? DEFAULT_REVISION : named.slice(at + 1).replaceAll(/%2F/gi, '/')
  const wrong =
    !NAME.test(owner) || !NAME.test(name) ? 'the repository' : !REVISION.test(revision) || revision.endsWith('/') ? 'the revision' : undefined
  if (wrong !== undefined) throw invalid(text, wrong)
  if (!folders.every((folder) => SEGMENT.test(folder))) throw invalid(text, 'the folder')
  const file = folders.at(-1)?.endsWith('.gguf') ? folders.at(-1) : undefined
  const folder = (file === undefined ? folders : folders.slice(0, -1)).join('/')
  return { text, repo: `${owner}/${name}`, revision, folder, file }
}

/** The last part of the address that names something: a file without its ending, a folder, or the repository. */
export function hubModelName({ repo, folder, file }: HubAddress): string {
  return file?.replace(/\.gguf$/, '') ?? (folder === '' ? repo : folder).split('/').at(-1) ?? repo
}

function invalid(text: unknown, part: string): Error {
  return invalidOption({
    what: `${part} is not one of the Hugging Face Hub`,
    expected: 'hf:owner/name, with @revision and /folder if they are needed',
    actual: show(text),
    remedy: 'Write it as in hf:HuggingFaceTB/SmolLM2-135M-Instruct or hf:Soughing/MLRA@main/main/mlra_4.',
    option: 'dir',
  })
}
