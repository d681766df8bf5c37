// REPORT.md, made of the results that lie in the machines' folders: question, method, picture, answer.

import { existsSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { OptionError } from '../../src/index.js'
import { BENCHMARKS } from '../registry.js'
import { type BenchResult, cells, drawAll, machineLine, pictureName, remarks } from './results.js'

/** Writes it beside a folder called results, else into the folder, and draws their pictures anew. Returns its path. Throws OptionError. */
export async function writeReport(results: string): Promise<string> {
  const path = join(basename(results) === 'results' ? dirname(results) : results, 'REPORT.md')
  const entries = await readdir(results, { withFileTypes: true }).catch((cause: Error) => {
    throw new OptionError('OPTION_INVALID', {
      what: 'there are no results for a report',
      expected: `folders of machines in ${results}`,
      actual: cause.message,
      remedy: 'Run a benchmark first, or name the folder of its results with --out.',
    })
  })
  const machines = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  const sections: string[] = []
  for (const { name, question } of BENCHMARKS) {
    const found: string[] = []
    for (const machine of machines.sort()) {
      const folder = join(results, machine)
      const file = join(folder, `${name}.json`)
      if (!existsSync(file)) continue
      const result = JSON.parse(await readFile(file, 'utf8')) as BenchResult
      await drawAll(result, folder)
      found.push(section(result, folder, dirname(path)))
    }
    if (found.length > 0) sections.push(`## ${name}: ${question}`, ...found)
  }
  const head = [
    '# What was measured',
    'Made by `npx tetrad bench report` from the results beside it; every table has its numbers as JSON and CSV in its folder. Machines are shared: compare within a table.',
  ]
  await writeFile(path, `${[...head, ...sections].join('\n\n')}\n`)
  return path
}

function section(result: BenchResult, folder: string, from: string): string {
  const [header = [], ...rows] = cells(result)
  const line = (texts: readonly string[]) => `| ${texts.map((t) => t.replaceAll('|', '/')).join(' | ')} |`
  const pictures = result.pictures.filter(({ points }) => points.length > 0)
  const images = pictures.map(
    ({ name, title }) => `![${title.replaceAll('\n', ' ')}](${relative(from, join(folder, `${pictureName(result.benchmark, name)}.svg`))})`,
  )
  return [
    `### ${result.machine.gpu ?? `${result.machine.cpu}, ${result.machine.cores} cores`}`,
    `${machineLine(result)}. \`${result.command}\``,
    result.method,
    `**Floor:** ${result.floor}.`,
    ...images,
    result.answer.join(' '),
    ...(remarks(result).length > 0 ? [remarks(result).join('. ')] : []),
    `<details><summary>${rows.length} rows</summary>\n\n${[line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n')}\n\n</details>`,
  ].join('\n\n')
}
