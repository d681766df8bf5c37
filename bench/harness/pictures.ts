// Pictures of results, as SVG and PNG. Vega-Lite draws them; it is a development dependency, so an installed package draws none.
import { readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { FONT, vegaLite } from './vega-lite.js'

export interface Point {
  readonly x: number | string
  readonly y: number
  /** p10 and p90. */
  readonly low?: number
  readonly high?: number
  readonly series: string
  /** Panel of small multiples. */
  readonly facet?: string
  /** False: the spread is above the bound. Default true. */
  readonly trusted?: boolean
  readonly predicted?: boolean
}

export interface Axis {
  /** Empty: none. */
  readonly title: string
  readonly log?: boolean
  /** Values that get a tick; default: the library's choice. */
  readonly ticks?: readonly number[]
}

/** One chart: lines over numbers, or horizontal bars over names. */
export interface Picture {
  /** Suffix of the file's name, after the benchmark's; empty: none. */
  readonly name: string
  readonly title: string
  readonly kind: 'lines' | 'bars'
  readonly x: Axis
  /** The values; of bars too, though these are drawn horizontally. */
  readonly y: Axis
  readonly points: readonly Point[]
  /** The least possible values (of a rate: the greatest), each of the series that it names. */
  readonly floor?: readonly Point[]
  /** What `floor` is called: a rate has a limit. Default 'floor'. */
  readonly bound?: 'floor' | 'limit'
  /** A line across the plot at a value. */
  readonly reference?: { readonly value: number; readonly label: string }
  /** A sentence for the caption. */
  readonly note?: string
}

const MISSING = 'no pictures: vega, vega-lite, @resvg/resvg-wasm and dejavu-fonts-ttf are not installed (they come with a clone of the repository)'

/** Draws one; undefined where the packages are missing. */
let drawing: Promise<((picture: Picture) => Promise<string>) | undefined> | undefined

/** Writes `path`.svg and `path`.png. Returns false, and says so once on stderr, where the chart packages are not installed. */
export async function draw(picture: Picture, path: string): Promise<boolean> {
  drawing ??= openDrawing()
  const svgOf = await drawing
  if (svgOf === undefined) return false
  const svg = await svgOf(picture)
  await writeFile(`${path}.svg`, svg)
  await writeFile(`${path}.png`, await png(svg))
  return true
}

async function openDrawing(): Promise<((picture: Picture) => Promise<string>) | undefined> {
  try {
    const [{ compile }, { parse, View, Warn }] = await Promise.all([import('vega-lite'), import('vega')])
    return async (picture) => {
      const { spec } = compile(vegaLite(picture) as Parameters<typeof compile>[0])
      const view = new View(parse(spec), { renderer: 'none', logLevel: Warn })
      const svg = await view.toSVG()
      view.finalize()
      return svg
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    console.error(MISSING)
    return undefined
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
