// A picture as a Vega-Lite specification. One meaning for each mark: colour and shape tell series apart, dashed is a floor (or a limit), hollow is
// a spread above the bound, pale is predicted. A caption in the picture explains the marks that it has.
import type { Axis, Picture, Point } from './pictures.js'
import { SPREAD_BOUND } from './sample.js'

export const FONT = 'DejaVu Sans'
/** Pixels of the plots of a row together, as wide as a page on GitHub shows. */
const WIDTH = 640
const GAP = 50
/** Characters of a line of a title, and of a caption. Vega, without a canvas, takes a character to be 0.8 of the font's size wide. */
const TITLE_LINE = 66
const CAPTION_LINE = 78
/** Okabe and Ito's colours, which most eyes tell apart. Their yellow is left out: it is too pale on white. */
const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000', '#7F7F7F']
const SHAPES = ['circle', 'square', 'triangle-up', 'diamond', 'cross', 'triangle-down', 'triangle-right', 'triangle-left']
const SOLID = [1, 0]
const DASHED = [4, 2]
const PALE = 0.35

/** Multiples of 1024 with K or M, since cached tokens and bytes are such; other numbers as they are. */
const LABEL =
  "datum.value >= 1048576 && datum.value % 1048576 == 0 ? datum.value / 1048576 + 'M' : datum.value >= 1024 && datum.value % 1024 == 0 ? datum.value / 1024 + 'K' : datum.value < 1 ? format(datum.value, '~g') : format(datum.value, ',~f')"

interface Drawn extends Point {
  readonly floor: boolean
  readonly hollow: boolean
}

function boundName(series: string, { bound = 'floor' }: Picture): string {
  return `${series}: ${bound}`
}

/** Words in lines of at most `length` characters. */
function wrapped(text: string, length: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + word.length < length) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}

/** What the marks of a picture mean, as far as it has them. */
export function caption({ kind, points, floor, note, bound = 'floor' }: Picture): string {
  const lines = kind === 'lines'
  const parts = [
    floor && floor.length > 0 && (lines ? `Dashed: the ${bound} of the line of the same colour.` : `Black tick: the ${bound}.`),
    points.some((p) => p.high !== undefined) && `${lines ? 'Upright' : 'Dark'} line: p10 to p90.`,
    points.some((p) => p.trusted === false) && `Hollow: p10 to p90 is more than ${SPREAD_BOUND * 100} % of the median, not to be trusted.`,
    points.some((p) => p.predicted) && 'Pale: predicted, not measured.',
    note,
  ]
  return parts.filter((part) => typeof part === 'string').join(' ')
}

/** 1, 2 and 5 times the powers of ten from the least to the greatest value. */
function logTicks(values: readonly number[]): number[] {
  const [least, most] = [Math.min(...values), Math.max(...values)]
  const ticks: number[] = []
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power++) {
    for (const digit of [1, 2, 5]) ticks.push(power < 0 ? digit / 10 ** -power : digit * 10 ** power)
  }
  return ticks.filter((tick) => tick >= least / 1.3 && tick <= most * 1.3)
}

function valueAxis({ y, points, floor = [] }: Picture): Axis {
  return y.log && !y.ticks ? { ...y, ticks: logTicks([...points, ...floor].map((p) => p.y)) } : y
}

/** Ticks at the values measured, labels centred under them, and room for a whole marker at both ends. */
function axisOf({ title, log, ticks }: Axis, padding: number): object {
  return {
    title: title === '' ? null : title,
    scale: log ? { type: 'log', nice: false, padding } : { zero: true },
    axis: { ...(ticks && { values: ticks }), labelExpr: LABEL, labelOverlap: true, labelFlush: false },
  }
}

/** A legend below the plots, in as many columns as fit. pairs: a series and its floor stand in one row. */
function legendOf(names: readonly string[], pairs = false): object | null {
  if (names.length < 2) return null
  const longest = Math.max(...names.map((name) => name.length))
  const fitting = Math.max(1, Math.floor(WIDTH / (longest * 8.8 + 20)))
  const columns = pairs && fitting > 1 ? fitting - (fitting % 2) : fitting
  return { orient: 'bottom', columns: Math.min(columns, names.length), labelLimit: 0, symbolOpacity: 1, symbolStrokeWidth: 2, title: null }
}

function lineLayers(picture: Picture, series: readonly string[]): object[] {
  const floors = new Set(picture.floor?.map((p) => p.series))
  // A series, then its floor.
  const entries = series.flatMap((name, i) => [
    { name, colour: COLOURS[i], shape: SHAPES[i], dash: SOLID },
    ...(floors.has(name) ? [{ name: boundName(name, picture), colour: COLOURS[i], shape: 'stroke', dash: DASHED }] : []),
  ])
  const names = entries.map(({ name }) => name)
  const legend = legendOf(names, floors.size === series.length)
  const scale = (range: readonly unknown[]) => ({ field: 'series', type: 'nominal', scale: { domain: names, range }, legend })
  const color = scale(entries.map(({ colour }) => colour))
  const shape = scale(entries.map((entry) => entry.shape))
  const strokeDash = scale(entries.map(({ dash }) => dash))
  const x = { field: 'x', type: 'quantitative', ...axisOf(picture.x, 10) }
  const y = { field: 'y', type: 'quantitative', ...axisOf(valueAxis(picture), 10) }
  const layer = (filter: string, mark: object, encoding: object) => ({ transform: [{ filter }], mark, encoding: { x, y, ...encoding } })
  const point = (filter: string, mark: object) => layer(`!datum.floor && ${filter}`, { type: 'point', size: 50, ...mark }, { color, shape })
  const has = (is: (p: Point) => boolean) => picture.points.some(is)
  return [
    ...(floors.size > 0 ? [layer('datum.floor', { type: 'line', strokeWidth: 1.2 }, { color, strokeDash })] : []),
    ...(has((p) => p.high !== undefined)
      ? [layer('!datum.floor && isValid(datum.high)', { type: 'rule' }, { y: { ...y, field: 'low' }, y2: { field: 'high' }, color })]
      : []),
    ...(has((p) => p.predicted === true) ? [layer('!datum.floor', { type: 'line', opacity: PALE }, { color })] : []),
    layer('!datum.floor && !datum.predicted', { type: 'line' }, { color, strokeDash }),
    ...(has((p) => p.predicted === true) ? [point('datum.predicted', { filled: true, opacity: PALE })] : []),
    ...(has((p) => p.trusted !== false && !p.predicted) ? [point('!datum.hollow && !datum.predicted', { filled: true, opacity: 1 })] : []),
    ...(has((p) => p.trusted === false) ? [point('datum.hollow', { fill: 'white', opacity: 1, strokeWidth: 1.5 })] : []),
    ...referenceLayers(picture, 'y'),
  ]
}

function barLayers(picture: Picture, series: readonly string[]): object[] {
  const names = { field: 'x', type: 'nominal', sort: null }
  const offset = series.length > 1 && { yOffset: { field: 'series', sort: null, scale: { paddingInner: 0.25 } } }
  const x = { field: 'y', type: 'quantitative', ...axisOf(valueAxis(picture), 0) }
  const colour = { field: 'series', type: 'nominal', scale: { domain: series, range: COLOURS.slice(0, series.length) }, legend: legendOf(series) }
  const y = { ...names, title: picture.x.title === '' ? null : picture.x.title, axis: { labelLimit: 360 } }
  return [
    {
      transform: [{ filter: '!datum.floor' }],
      mark: { type: 'bar', strokeWidth: 1.5 },
      encoding: { y, x, ...offset, stroke: colour, fill: { ...colour, condition: { test: 'datum.hollow', value: 'white' } } },
    },
    ...(picture.points.some((p) => p.high !== undefined)
      ? [
          {
            transform: [{ filter: '!datum.floor && isValid(datum.high)' }],
            mark: { type: 'rule', color: '#333333', strokeWidth: 1.5 },
            encoding: { y: names, ...offset, x: { ...x, field: 'low' }, x2: { field: 'high' } },
          },
        ]
      : []),
    ...(picture.floor && picture.floor.length > 0
      ? [
          {
            transform: [{ filter: 'datum.floor' }],
            mark: { type: 'tick', color: '#000000', thickness: 3 },
            encoding: { y: names, ...offset, x },
          },
        ]
      : []),
    ...referenceLayers(picture, 'x'),
  ]
}

/** A line across the plot at a value, with its name. */
function referenceLayers({ reference }: Picture, channel: 'x' | 'y'): object[] {
  if (!reference) return []
  const at = { [channel]: { datum: reference.value } }
  const data = { values: [{}] }
  return [
    { data, mark: { type: 'rule', color: '#000000', strokeWidth: 1.5 }, encoding: at },
    {
      data,
      mark: { type: 'text', text: reference.label, align: 'left', baseline: 'bottom', dx: 4, dy: -2, fontSize: 11 },
      encoding: { ...at, ...(channel === 'x' && { y: { value: 0 } }), ...(channel === 'y' && { x: { value: 0 } }) },
    },
  ]
}

/** Panels in full rows where that is possible: an empty place would still draw its axes. */
function columnsOf(panels: number): number {
  return panels % 3 === 0 ? 3 : Math.min(2, panels)
}

/** The specification that Vega-Lite compiles. */
export function vegaLite(picture: Picture): object {
  const { points, floor = [], kind, title } = picture
  const series = [...new Set(points.map((p) => p.series))]
  const panels = [...new Set(points.map((p) => p.facet ?? ''))]
  const columns = columnsOf(panels.length)
  const bars = kind === 'bars'
  const values: Drawn[] = [
    ...floor.map((p) => ({ ...p, series: bars ? p.series : boundName(p.series, picture), floor: true, hollow: false })),
    ...points.map((p) => ({ ...p, floor: false, hollow: p.trusted === false })),
  ]
  const step = Math.max(11, Math.min(20, Math.floor(400 / Math.max(1, points.length / panels.length))))
  const size = bars
    ? { width: Math.floor((WIDTH - 130) / columns), height: { step, for: 'position' } }
    : { width: Math.floor((WIDTH - GAP * (columns - 1)) / columns), height: panels.length > 1 ? 230 : 300 }
  const inner = { ...size, layer: bars ? barLayers(picture, series) : lineLayers(picture, series) }
  const facet = { field: 'facet', type: 'nominal', sort: panels, header: { title: null } }
  const about = caption(picture)
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: 'white',
    padding: 8,
    title: {
      text: wrapped(title, TITLE_LINE),
      ...(about !== '' && { subtitle: wrapped(about, CAPTION_LINE) }),
      anchor: 'start',
      frame: 'bounds',
      fontSize: 13,
      subtitleFontSize: 11,
      subtitleColor: '#444444',
      subtitlePadding: 5,
      offset: 12,
    },
    data: { values: values.map((p) => ({ ...p, facet: p.facet ?? '' })) },
    config: {
      font: FONT,
      axis: { labelFontSize: 11, titleFontSize: 11, titleFontWeight: 'normal', gridColor: '#eeeeee' },
      legend: { labelFontSize: 11, symbolSize: 90 },
      header: { labelFontSize: 12 },
      view: { stroke: '#cccccc' },
    },
    ...(panels.length > 1 ? { facet, columns, spec: inner } : inner),
  }
}
