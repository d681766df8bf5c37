// Loads cached rows into a tile in workgroup memory, through registers.

const times = (n: number, line: (i: number) => string, separator = '\n') => Array.from({ length: n }, (_, i) => line(i)).join(separator)

/** A tile, and the threads that fill it. */
export interface Loading {
  readonly tokens: number
  readonly threads: number
  readonly unit: number
  readonly unitType: string
  readonly rowVectors: number
}

/** Loads of one region's rows, `units` for each row. */
export class RowLoads {
  readonly #l: Loading
  readonly #name: string
  readonly #units: number
  readonly #rowUnits: number
  readonly #place: (column: string) => string
  readonly #loads: number
  /** Each thread has one column, and rows at a fixed distance. */
  readonly #even: boolean

  /** place: the tile's column for a column of the region's row. */
  constructor(l: Loading, name: string, units: number, rowWidth: number, place: (column: string) => string) {
    this.#l = l
    this.#name = name
    this.#units = units
    this.#rowUnits = rowWidth / l.unit
    this.#place = place
    this.#loads = Math.ceil((l.tokens * units) / l.threads)
    this.#even = l.threads % Math.max(1, units) === 0
  }

  #rowStep(j: number): number {
    return (j * this.#l.threads) / this.#units
  }

  /** Row, and column in scalars, of load j. */
  #row(j: number): string {
    return this.#even ? `${this.#name}_row + ${this.#rowStep(j)}u` : `(lid + ${j * this.#l.threads}u) / ${this.#units}u`
  }

  #column(j: number): string {
    return this.#even ? `lid % ${this.#units}u * ${this.#l.unit}u` : `(lid + ${j * this.#l.threads}u) % ${this.#units}u * ${this.#l.unit}u`
  }

  #inTile(j: number): string | undefined {
    return (j + 1) * this.#l.threads <= this.#l.tokens * this.#units ? undefined : `${this.#row(j)} < ${this.#l.tokens}u`
  }

  declare(): string {
    const { rowVectors, unitType } = this.#l
    const n = this.#name
    const registers = times(this.#loads, (j) => `var ${n}_${j} = ${unitType}();`, ' ')
    if (!this.#even) return registers
    return `let ${n}_row = lid / ${this.#units}u; let ${n}_from = ${this.#rowUnits === this.#units ? 'lid' : `${n}_row * ${this.#rowUnits}u + lid % ${this.#units}u`};
  let ${n}_column = ${this.#place(this.#column(0))}; let ${n}_to = ${n}_row * ${rowVectors}u + ${n}_column / 8u; ${registers}`
  }

  /** Loads rows from `first` on of the page whose first unit is `base` into registers; zeros from row `left` on. */
  fetch(base: string, left: string, first = 0): string {
    const { threads, unitType } = this.#l
    const n = this.#name
    const from = (j: number) =>
      this.#even
        ? `${n}_from + ${(this.#rowStep(j) + first) * this.#rowUnits}u`
        : `(${this.#row(j)} + ${first}u) * ${this.#rowUnits}u + (lid + ${j * threads}u) % ${this.#units}u`
    return times(this.#loads, (j) => {
      const bounds = [this.#inTile(j), `${this.#row(j)} + ${first}u < ${left}`].filter((c) => c !== undefined).join(' && ')
      return `${n}_${j} = ${unitType}(); if (${bounds}) { ${n}_${j} = cache[${base} + ${from(j)}]; }`
    })
  }

  /** Stores the registers to the tile. */
  stash(): string {
    const { rowVectors, unit } = this.#l
    const n = this.#name
    return times(this.#loads, (j) => {
      const column = this.#even ? `${n}_column` : `(${this.#place(this.#column(j))})`
      const to = this.#even ? `${n}_to + ${this.#rowStep(j) * rowVectors}u` : `(${this.#row(j)}) * ${rowVectors}u + ${column} / 8u`
      const value = `${n}_${j}`
      const inVector = `${column} % 8u / 2u`
      const store =
        unit === 8
          ? `tile[${to}] = ${value};`
          : unit === 4
            ? `tile[${to}][${inVector}] = ${value}.x; tile[${to}][${inVector} + 1u] = ${value}.y;`
            : `tile[${to}][${inVector}] = ${value};`
      const bounds = this.#inTile(j)
      return bounds === undefined ? store : `if (${bounds}) { ${store} }`
    })
  }
}
