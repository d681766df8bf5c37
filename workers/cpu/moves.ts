// Copies between memories, as lists of columns made once.
import { copyRows, type Rows } from '../../kernels/rows.js'

export interface Move {
  readonly to: Rows
  readonly from: Rows
}

export function copyAll(moves: readonly Move[], tokens: number): void {
  for (let i = 0; i < moves.length; i++) {
    const { to, from } = moves[i] as Move
    copyRows(to, from, tokens)
  }
}
