// Charts by Vega-Lite, as SVG and PNG. Series differ in shape and dash as well as in colour; values that can't be trusted are hollow.
import { readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'

export interface Point {
  readonly x: number | string
  readonly y: number
  /** Of the spread. */
  readonly low?: number
  readonly high?: number
  readonly series: string
  /** Of small multiples. */
  readonly facet?: string
  readonly trusted?: boolean
  readonly predicted?: boolean
}

export interface Axis {
  readonly title: string
  readonly log?: boolean
  /** Values that get a mark; default: the library's choice. */
  readonly ticks?: readonly number[]
}

/** One chart: lines over numbers, or bars over names. */
export interface Picture {
  /** Of the file, behind the benchmark's. */
  readonly name: string
  readonly title: string
  readonly kind: 'lines' | 'bars'
  readonly x: Axis
  readonly y: Axis
  readonly points: readonly Point[]
  /** Drawn dashed and grey beneath: what physics allows. */
  readonly floor?: readonly Point[]
}

const FONT = 'DejaVu Sans'
/** Pixels of a README. */
const WIDTH = 700
/** Characters of a title's line. */
const LONGEST_LINE = 74
/** Okabe and Ito's colours, which most eyes tell apart; their yellow is too pale on white. */
const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000', '#7F7F7F']
const SHAPES = ['circle', 'square', 'triangle-up', 'diamond', 'cross', 'triangle-down', 'triangle-right', 'stroke']
const DASHES = [
  [1, 0],
  [6, 3],
  [2, 2],
  [8, 3, 2, 3],
  [4, 2],
  [10, 4],
  [1, 3],
  [5, 1],
]

/** Cached tokens by the thousand, which is 1024; other numbers as they are. */
const LABEL =
  "datum.value >= 1048576 && datum.value % 1048576 == 0 ? datum.value / 1048576 + 'M' : datum.value >= 1024 && datum.value % 1024 == 0 ? datum.value / 1024 + 'K' : datum.value < 1 ? format(datum.value, '~g') : format(datum.value, ',~f')"

function axisOf({ title, log, ticks }: Axis): object {
  return {
    title,
    scale: log ? { type: 'log', nice: false } : { zero: true },
    axis: { ...(ticks && { values: ticks }), labelExpr: LABEL, labelOverlap: true },
  }
}

function isHollow({ trusted, predicted }: Point): boolean {
  return trusted === false || predicted === true
}

/** Layers of lines with their spread, over the floors. */
function lineLayers(picture: Picture, series: readonly string[]): object[] {
  const scale = (field: string, range: readonly unknown[]) => ({
    field,
    type: 'nominal',
    scale: { domain: series, range: range.slice(0, series.length) },
    title: null,
  })
  const color = scale('series', COLOURS)
  const shape = scale('series', SHAPES)
  const strokeDash = scale('series', DASHES)
  const x = { field: 'x', type: 'quantitative', ...axisOf(picture.x) }
  const y = { field: 'y', type: 'quantitative', ...axisOf(picture.y) }
  const layer = (filter: string, mark: object, encoding: object) => ({ transform: [{ filter }], mark, encoding: { x, y, ...encoding } })
  return [
    ...(picture.floor ? [layer('datum.floor', { type: 'line', color: '#aaaaaa', strokeDash: [3, 3] }, { detail: { field: 'series' } })] : []),
    ...(picture.points.some((p) => p.high !== undefined)
      ? [layer('!datum.floor && isValid(datum.high)', { type: 'rule', opacity: 0.5 }, { y: { ...y, field: 'low' }, y2: { field: 'high' }, color })]
      : []),
    layer('!datum.floor', { type: 'line' }, { color, strokeDash }),
    ...(picture.points.some((p) => !isHollow(p))
      ? [layer('!datum.floor && !datum.hollow', { type: 'point', filled: true, size: 45, opacity: 1 }, { color, shape })]
      : []),
    ...(picture.points.some(isHollow)
      ? [layer('!datum.floor && datum.hollow', { type: 'point', fill: 'white', size: 45, opacity: 1 }, { color, shape })]
      : []),
  ]
}

function barLayers(picture: Picture, series: readonly string[]): object[] {
  const names = { field: 'x', type: 'nominal', sort: null }
  const offset = series.length > 1 && { yOffset: { field: 'series', sort: null } }
  const x = { field: 'y', type: 'quantitative', ...axisOf(picture.y) }
  const color = { field: 'series', type: 'nominal', scale: { domain: series, range: COLOURS.slice(0, series.length) }, title: null }
  return [
    {
      mark: { type: 'bar' },
      encoding: {
        y: { ...names, title: picture.x.title === '' ? null : picture.x.title, axis: { labelLimit: 360 } },
        x,
        ...offset,
        ...(series.length > 1 && { color }),
        opacity: { condition: { test: 'datum.hollow', value: 0.45 }, value: 1 },
      },
    },
    ...(picture.points.some((p) => p.high !== undefined)
      ? [
          {
            transform: [{ filter: 'isValid(datum.high)' }],
            mark: { type: 'rule', color: '#333333' },
            encoding: { y: names, ...offset, x: { ...x, field: 'low' }, x2: { field: 'high' } },
          },
        ]
      : []),
    ...(picture.floor
      ? [{ transform: [{ filter: 'datum.floor' }], mark: { type: 'tick', color: '#555555', thickness: 2 }, encoding: { y: names, ...offset, x } }]
      : []),
  ]
}

/** A title in lines that fit a picture. */
function wrapped(title: string): string[] {
  const lines: string[] = []
  for (const word of title.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + word.length < LONGEST_LINE) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}

/** The specification that Vega-Lite draws. */
export function vegaLite(picture: Picture): object {
  const { points, floor = [], kind, title } = picture
  const series = [...new Set(points.map((p) => p.series))]
  const facets = [...new Set(points.map((p) => p.facet ?? ''))]
  const columns = Math.min(3, facets.length)
  const many = facets.length > 1
  const bars = kind === 'bars'
  const values = [...floor.map((p) => ({ ...p, floor: true })), ...points.map((p) => ({ ...p, floor: false, hollow: isHollow(p) }))]
  const size = bars
    ? {
        width: Math.floor((WIDTH - 300) / columns),
        height: { step: Math.max(9, Math.min(18, Math.floor(400 / Math.max(1, points.length / facets.length)))), for: 'position' },
      }
    : { width: Math.floor((WIDTH - 170 - 45 * (columns - 1)) / columns), height: many ? 230 : 300 }
  const inner = { ...size, layer: bars ? barLayers(picture, series) : lineLayers(picture, series) }
  const facet = { field: 'facet', type: 'nominal', sort: null, header: { title: null } }
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: 'white',
    padding: 8,
    title: { text: wrapped(title), anchor: 'start', fontSize: 13, offset: 12 },
    data: { values: values.map((p) => ({ ...p, facet: p.facet ?? '' })) },
    config: {
      font: FONT,
      axis: { labelFontSize: 11, titleFontSize: 11, titleFontWeight: 'normal', gridColor: '#eeeeee' },
      legend: { labelFontSize: 11, symbolSize: 70 },
      header: { labelFontSize: 12 },
      view: { stroke: '#cccccc' },
    },
    ...(many ? { facet, columns, spec: inner } : inner),
  }
}

/** Writes `path`.svg and `path`.png. False, and a line on stderr, where the chart packages are not installed (npm's --omit=optional). */
export async function draw(picture: Picture, path: string): Promise<boolean> {
  try {
    const [{ compile }, { parse, View, Warn }] = await Promise.all([import('vega-lite'), import('vega')])
    const { spec } = compile(vegaLite(picture) as Parameters<typeof compile>[0])
    const view = new View(parse(spec), { renderer: 'none', logLevel: Warn })
    const svg = await view.toSVG()
    view.finalize()
    await writeFile(`${path}.svg`, svg)
    await writeFile(`${path}.png`, await png(svg))
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    console.error(`no picture ${path}: the optional packages vega, vega-lite, @resvg/resvg-wasm and dejavu-fonts-ttf are not installed`)
    return false
  }
}

let started: Promise<void> | undefined

async function png(svg: string): Promise<Uint8Array> {
  const { initWasm, Resvg } = await import('@resvg/resvg-wasm')
  const require = createRequire(import.meta.url)
  started ??= readFile(require.resolve('@resvg/resvg-wasm/index_bg.wasm')).then((bytes) => initWasm(bytes))
  await started
  const fonts = ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'].map((name) => readFile(require.resolve(`dejavu-fonts-ttf/ttf/${name}`)))
  const image = new Resvg(svg, { fitTo: { mode: 'zoom', value: 2 }, font: { fontBuffers: await Promise.all(fonts), defaultFontFamily: FONT } })
  return image.render().asPng()
}
