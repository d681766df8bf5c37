// Shapes and tilings of attention on tensor cores, and the sizes that follow from them. Generates no kernel.
import type { FlashShape } from './flash-attention.js'

/** Maximum heads of a workgroup. */
export const MAX_HEADS = 64
/** Multiprocessors of the card that was measured (H100); each runs one workgroup of wide heads, or two. */
const MULTIPROCESSORS = 132
/** Side of a subgroup matrix. */
export const SIDE = 16
export const LANES = 32
/** Registers of one thread that matrices may take. */
const REGISTERS = 208

/** Columns of whole matrices. */
export const pad = (n: number) => Math.ceil(n / SIDE) * SIDE

/** Up to MAX_HEADS heads that attend over one stream: first element of its region. */
export interface TensorGroup {
  readonly region: number
}

/** A head's place in packed queries. Columns of its queries in their rows; rope -1: the slot is empty. */
export interface HeadSlot {
  readonly query: number
  readonly rope: number
}

/** The widths that determine the tiling. */
export type TensorWidths = Pick<FlashShape, 'keyWidth' | 'keyOffset' | 'valueOffset' | 'valueWidth' | 'ropeDim' | 'rowWidth' | 'ropeRowWidth'>

export interface TensorShape extends Omit<FlashShape, 'groups' | 'outHeads' | 'factors' | 'format' | 'queryStride' | 'ropeStride'> {
  readonly groups: readonly TensorGroup[]
  /** Slots of a group in a row of the output, a multiple of 16. */
  readonly groupHeads: number
  /** Heads of a group, at most: those of several rows lie without gaps. */
  readonly rowHeads: number
  /** Heads of all groups, [groups][rowHeads]. */
  readonly slots: readonly (HeadSlot | undefined)[]
  /** Rows that packed queries have room for: [groups][queryRows][rowHeads][packedQueryWidth]. */
  readonly queryRows: number
}

/** How the work of a workgroup is divided. `tokens`, `split` and `scores` fix the order of sums; the others change only speed. */
export interface TensorTiling {
  /** Cached rows at a time: 16 or 32. */
  readonly tokens: number
  /** Subgroups that share the same heads: 2 or 4. Weighted sums they share by columns. */
  readonly split: number
  /** How they share scores: by columns, whose sums are then added, or by cached rows (16 * split of them at a time). */
  readonly scores: 'columns' | 'tokens'
  /** Groups of 16 heads of one subgroup: 1 or 2. */
  readonly headTiles: number
  /**
   * One tile of cached rows after another, and workgroups that take parts in turn (workgroupsOfParts); or a page at a time, with a workgroup
   * for each part: its longer code needs fewer registers beside matrices.
   */
  readonly walk: 'tiles' | 'pages'
}

/** Tiles of tokens for which a subgroup computes scores, and steps of 16 columns of each. */
export function scoreWork({ keySteps }: { readonly keySteps: number }, { tokens, split, scores }: Pick<TensorTiling, 'tokens' | 'split' | 'scores'>) {
  return scores === 'tokens' ? { blocks: tokens / SIDE / split, steps: keySteps } : { blocks: tokens / SIDE, steps: Math.ceil(keySteps / split) }
}

/** Columns of a tile of cached rows: keys, values (the same where they begin at column 0), rope keys; padded to 16. */
function columnsOf({ keyWidth, valueOffset, valueWidth, ropeDim }: TensorWidths) {
  const shared = valueOffset === 0
  const valueAt = shared ? 0 : pad(keyWidth)
  const ropeAt = shared ? pad(Math.max(keyWidth, valueWidth)) : valueAt + pad(valueWidth)
  return { valueAt, ropeAt, all: ropeAt + pad(ropeDim) }
}

/** Scalars of a packed query: key columns, then rope columns, each padded to 16. */
export function packedQueryWidth({ keyWidth, ropeDim }: Pick<TensorShape, 'keyWidth' | 'ropeDim'>): number {
  return pad(keyWidth) + pad(ropeDim)
}

/** Scalars of a head's weighted sum, as it is stored. */
export function packedValueWidth(valueWidth: number): number {
  return pad(valueWidth)
}

/** Slots of a workgroup that has a group's heads of so many rows. */
export function slotsOf({ rowHeads }: Pick<TensorShape, 'rowHeads'>, rows: number): number {
  return pad(rows * rowHeads)
}

/** Workgroups of attention from which a device gains nothing by more of them: a few for each multiprocessor, to even out their ends. */
const ENOUGH_WORKGROUPS = 8 * MULTIPROCESSORS

/** Workgroups along the parts of a context, where there are `others` more for each: one that takes several loads its queries once. */
export function workgroupsOfParts({ walk }: TensorTiling, parts: number, others: number): number {
  return walk === 'pages' ? parts : Math.min(parts, Math.max(1, Math.ceil(ENOUGH_WORKGROUPS / others)))
}

/** Rows of a prompt that share a workgroup's cached rows, and slots that they may take. */
const PROMPT_ROWS = [8, 6, 4, 3, 2]
const PROMPT_SLOTS = 96

/**
 * Rows of one sequence that share a workgroup, where that leaves no more slots empty than one row does, and the tiling: tokens and split
 * are those of one row, so a row's bits are the same alone and beside others. undefined: workgroup memory has no room for two rows.
 */
export function planPromptRows(
  shape: TensorWidths,
  rowHeads: number,
  one: TensorTiling,
  workgroupStorage: number,
): { readonly rows: number; readonly tiling: TensorTiling } | undefined {
  const waste = (rows: number) => pad(rows * rowHeads) / (rows * rowHeads)
  for (const rows of PROMPT_ROWS) {
    const slots = pad(rows * rowHeads)
    if (slots > PROMPT_SLOTS || waste(rows) > waste(1)) continue
    // Pairs of head tiles share what a subgroup loads; with scores by tokens more subgroups are faster.
    for (const headTiles of one.scores === 'tokens' ? [1, 2] : [2, 1]) {
      if (slots % (SIDE * headTiles) !== 0 || headTiles > 1 + Number(pairsFit(shape, one))) continue
      const tiling = { ...one, headTiles, walk: walkOf(shape, one, headTiles) }
      if (storageOf(shape, slots, tiling) <= workgroupStorage) return { rows, tiling }
    }
  }
  return undefined
}

type Sharing = Pick<TensorTiling, 'tokens' | 'split' | 'scores'>

/** Registers of a thread that matrices take: sums and queries of 16 heads. */
function registersOf(shape: TensorWidths, sharing: Sharing): number {
  const { steps } = scoreWork({ keySteps: packedQueryWidth(shape) / SIDE }, sharing)
  return 8 * Math.ceil(pad(shape.valueWidth) / SIDE / sharing.split) + 4 * steps
}

/** Registers of matrices up to which a walk by tiles is faster: with 200 and 208 it was 1.3 times slower (streams of 512 and 256). */
const WALK_REGISTERS = 128

function walkOf(shape: TensorWidths, sharing: Sharing, headTiles: number): TensorTiling['walk'] {
  return headTiles * registersOf(shape, sharing) <= WALK_REGISTERS ? 'tiles' : 'pages'
}

function pairsFit(shape: TensorWidths, sharing: Sharing): boolean {
  return 2 * registersOf(shape, sharing) <= REGISTERS
}

/** Of streams with fewer heads than fill a workgroup. Others are faster with fewer tokens, and pairs of head tiles (64 heads on an H200: 0.40
 * ms at 2,097,152 tokens, 0.51). */
const FEW_HEADS: Sharing = { tokens: 2 * SIDE, split: 2, scores: 'tokens' }

/** In order of preference: the first whose registers suffice for one row of 16 heads, and whose memory does. */
const SHARINGS: readonly Sharing[] = [
  { tokens: SIDE, split: 2, scores: 'columns' },
  { tokens: SIDE, split: 4, scores: 'columns' },
]

/** Bytes of workgroup memory. */
function storageOf(shape: TensorWidths, groupHeads: number, tiling: TensorTiling): number {
  const g = geometry(shape, groupHeads, tiling)
  return (g.tileVectors + groupHeads / 4 + 1) * 16 + (g.scores * 4 + g.weights * 2) * g.vector
}

/**
 * Heads of a group, and the tiling, for streams of which a rank has `heads` heads each. Undefined: these kernels do not support the widths,
 * and flash-attention.ts is used. Support and the order of sums depend on the widths and on `streamHeads`, the heads of a stream in the
 * whole model, so they are the same at every rank count.
 */
export function planTensorAttention(
  shape: TensorWidths,
  heads: number,
  workgroupStorage: number,
  streamHeads = heads,
): { readonly groupHeads: number; readonly tiling: TensorTiling; readonly workgroups: number } | undefined {
  if (unitOf(shape) === undefined) return undefined
  const sharings = slotsOfGroup(streamHeads) === MAX_HEADS ? SHARINGS : [FEW_HEADS, ...SHARINGS]
  const sharing = sharings.find((one) => registersOf(shape, one) <= REGISTERS && fits(shape, SIDE, one, workgroupStorage))
  if (sharing === undefined) return undefined
  const pairs = pairsFit(shape, sharing)
  for (let groupHeads = slotsOfGroup(heads); groupHeads > 0; groupHeads -= SIDE) {
    const headTiles = sharing.scores === 'columns' && pairs && groupHeads % (2 * SIDE) === 0 ? 2 : 1
    const tiling = { ...sharing, headTiles, walk: walkOf(shape, sharing, headTiles) }
    if (storageOf(shape, groupHeads, tiling) <= workgroupStorage)
      return { groupHeads, tiling, workgroups: pairs ? 2 * MULTIPROCESSORS : MULTIPROCESSORS }
  }
  return undefined
}

/** Slots of a group where a stream's heads are shared among as few groups as there may be. */
function slotsOfGroup(heads: number): number {
  return pad(Math.ceil(heads / Math.ceil(heads / MAX_HEADS)))
}

function fits(shape: TensorWidths, groupHeads: number, sharing: Sharing, workgroupStorage: number): boolean {
  return storageOf(shape, groupHeads, { ...sharing, headTiles: 1, walk: 'tiles' }) <= workgroupStorage
}

/** Cached scalars of one load: 8, 4 or 2. Undefined: rows are not aligned to 2. */
export function unitOf({ rowWidth, ropeRowWidth, ropeDim, valueOffset, keyWidth, keyOffset }: TensorWidths): number | undefined {
  if (keyOffset !== 0 || (valueOffset !== 0 && valueOffset < keyWidth)) return undefined
  return [8, 4, 2].find((unit) => rowWidth % unit === 0 && valueOffset % unit === 0 && (ropeDim === 0 || ropeRowWidth % unit === 0))
}

/** Sizes in the generated kernel. */
export function geometry(shape: TensorWidths, groupHeads: number, { tokens, headTiles, split, scores }: TensorTiling) {
  const columns = columnsOf(shape)
  const headGroups = groupHeads / SIDE / headTiles
  const subgroups = headGroups * split
  const threads = LANES * subgroups
  /** Threads of one head in the softmax; each takes vectors of up to 4 tokens in turn. */
  const perHead = threads / groupHeads
  const vector = Math.min(4, tokens / perHead)
  // 16 bytes of padding avoid bank conflicts between rows; for the same reason rows of scores have 24 or 40 elements.
  const rowVectors = columns.all / 8 + 1
  const scoreRow = tokens + 8
  const weightRow = tokens + 8
  /** Sums of each part of the columns. */
  const scoreParts = scores === 'columns' ? split : 1
  return {
    columns,
    threads,
    perHead,
    vector,
    chunks: tokens / perHead / vector,
    rowVectors,
    tileVectors: tokens * rowVectors,
    scoreRow,
    weightRow,
    scoreParts,
    // In vectors. Scores; scratch for rescaling.
    scores: Math.max(scoreParts * groupHeads * scoreRow, subgroups * SIDE * SIDE) / vector,
    weights: (groupHeads * weightRow) / vector,
    keySteps: packedQueryWidth(shape) / SIDE,
    valueSteps: pad(shape.valueWidth) / SIDE,
  }
}
