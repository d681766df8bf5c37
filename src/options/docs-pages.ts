// The files that are made from the option tables: the API's types, docs/options.md and docs/sampling.md. Knows the tables only.
import { flagName, snakeCase } from './caller.js'
import { ENGINE_OPTIONS } from './engine-options.js'
import { type Entry, type Table, withRange } from './entry.js'
import { GENERATE_PARAMS } from './generate-params.js'

type AnyEntry = Entry<unknown, unknown>

const COMMENT_WIDTH = 110

/** src/options/public-types.ts. */
export function publicTypes(): string {
  const { n, ...single } = GENERATE_PARAMS
  return [
    '// Made from the option tables by `npm run docs:options`: change src/options/engine-options.ts or generate-params.ts, not this file.',
    '',
    "import type { StructuralTag } from '../constraints/sources.js'",
    '',
    '/** How far loading is. */',
    'export interface LoadProgress {',
    '  /** Bytes of the checkpoint that were read so far. */',
    '  readonly loadedBytes: number',
    '  /** Bytes of the checkpoint that will be read. */',
    '  readonly totalBytes: number',
    '}',
    '',
    '/** How far the download of a model is. */',
    'export interface DownloadProgress {',
    '  /** The file that is being downloaded. */',
    '  readonly file: string',
    '  /** Bytes that are on disk, those of earlier attempts included. */',
    '  readonly downloadedBytes: number',
    '  /** Bytes of all files that are known to be missing. It grows once, when the index of a large model was read. */',
    '  readonly totalBytes: number',
    '  /** Over the last seconds. */',
    '  readonly bytesPerSecond: number',
    '  /** At this speed; undefined: nothing came yet. */',
    '  readonly secondsLeft: number | undefined',
    '}',
    '',
    '/** Options of Engine.load. An unknown name or a value out of range throws OptionError. */',
    `export interface EngineOptions {`,
    ...members(ENGINE_OPTIONS),
    '}',
    '',
    '/** Parameters of engine.generate and engine.chat. An unknown name or a value out of range rejects with OptionError. */',
    'export interface GenerateParams {',
    ...members(single),
    '}',
    '',
    '/** Parameters of engine.generateMany: those of generate, and `n`. */',
    'export interface GenerateManyParams extends GenerateParams {',
    ...members({ n }),
    '}',
    '',
  ].join('\n')
}

function members(table: Table): string[] {
  return Object.entries(table).flatMap(([name, entry]) => [...comment(sentences(entry)), `  ${name}?: ${entry.type}`])
}

/** As JSDoc, indented for a member. */
function comment(text: string): string[] {
  const lines = wrap(text, COMMENT_WIDTH)
  return lines.length === 1 ? [`  /** ${lines[0]} */`] : ['  /**', ...lines.map((line) => `   * ${line}`), '   */']
}

function sentences(entry: AnyEntry): string {
  const defaultText = entry.defaultText === '' ? '' : ` Default: ${entry.defaultText}.`
  return `${capitalized(isListed(entry) ? entry.doc : withRange(entry))}.${defaultText}${entry.more === '' ? '' : ` ${entry.more}`}`
}

/** The type lists the values already. */
function isListed({ type }: AnyEntry): boolean {
  return type.includes("'") || type === 'string'
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}

/** docs/options.md. */
export function optionsPage(): string {
  return [
    '# Engine options',
    '',
    '`Engine.load(dir, options)` takes these options. The commands `generate`, `chat`, `eval`, `serve`,',
    '`batch` and `inspect` take the same options as flags. Values are checked before a model is loaded;',
    'an unknown name or a value out of range is an `OptionError` that names the option as it was written.',
    'This page is made from `src/options/engine-options.ts` by `npm run docs:options`.',
    '',
    '| option | flag | values | default | meaning |',
    '|---|---|---|---|---|',
    ...Object.entries(ENGINE_OPTIONS).map(([name, entry]) =>
      row([`\`${name}\``, flagCell(name, entry), valuesCell(entry), defaultCell(entry), meaning(entry)]),
    ),
    '',
    'A flag with a list (`--adapter`) is given once for each item.',
    '',
  ].join('\n')
}

/** docs/sampling.md. */
export function samplingPage(): string {
  return [
    '# Generation parameters',
    '',
    '`engine.generate(prompt, params)`, `engine.generateMany(prompts, params)` and',
    '`engine.chat(messages, params)` take these parameters. `tetrad generate` and `tetrad chat` take them',
    "as flags, and the server's endpoints as fields of the body. An unknown name or a value out of range",
    'is refused with the name that the caller wrote.',
    'This page is made from `src/options/generate-params.ts` by `npm run docs:options`.',
    '',
    '| parameter | flag | HTTP field | values | default | meaning |',
    '|---|---|---|---|---|---|',
    ...Object.entries(GENERATE_PARAMS).map(([name, entry]) =>
      row([`\`${name}\``, flagCell(name, entry), httpCell(name, entry), valuesCell(entry), defaultCell(entry), meaning(entry)]),
    ),
    '',
    '`max_tokens` is 16 by default for `/v1/completions` and the rest of the context for',
    '`/v1/chat/completions`, where `max_completion_tokens` means the same. `logprobs` is a number for',
    '`/v1/completions`; for `/v1/chat/completions` it is a boolean, and `top_logprobs` is the number.',
    `HTTP values that mean "not set": \`null\` for every field, ${unsetText()}.`,
    '',
    '## Order of operations',
    '',
    '1. `logitBias` is added.',
    '2. The repetition penalty is applied (tokens of prompt and output), then the presence and frequency',
    '   penalties (tokens of the output).',
    '3. Ids that end the text are suppressed while fewer than `minTokens` tokens were generated.',
    '4. At temperature 0 the most likely token is taken; ties go to the lowest id.',
    '5. Otherwise logits are divided by the temperature; then `topK`, `topP`, `minP` and `typicalP` filter,',
    '   each on what the filter before it left.',
    '6. The token is the inverse CDF, over ids in ascending order, at a uniform number that is a function of',
    '   the seed, the index of the completion, and the position. So equal seeds give equal tokens whatever',
    '   else runs.',
    '',
    "`logprobs` are those of the model's own distribution, before all of these steps.",
    '',
  ].join('\n')
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function flagCell(name: string, { flag }: AnyEntry): string {
  if (!flag) return ''
  return flag.value === undefined ? `\`${flagName(name)}\`` : `\`${flagName(name)} ${flag.value}\``
}

/** Fields that the two endpoints spell differently. */
const OWN_FIELDS: Readonly<Record<string, string>> = { maxTokens: '`max_tokens`', logprobs: '`logprobs`' }

function httpCell(name: string, { http }: AnyEntry): string {
  return OWN_FIELDS[name] ?? (http ? `\`${snakeCase(name)}\`` : '')
}

function valuesCell({ range, type }: AnyEntry): string {
  return range === '' ? `\`${type}\`` : range
}

function defaultCell({ defaultText }: AnyEntry): string {
  return defaultText === '' ? 'not set' : defaultText
}

function meaning({ doc, more }: AnyEntry): string {
  return `${capitalized(doc)}.${more === '' ? '' : ` ${more}`}`
}

function unsetText(): string {
  return Object.entries(GENERATE_PARAMS)
    .filter(([, { http }]) => http && http.unset.length > 0)
    .map(([name, { http }]) => `${http?.unset.map((value) => `\`${JSON.stringify(value)}\``).join(' and ')} for \`${snakeCase(name)}\``)
    .join(', ')
}
