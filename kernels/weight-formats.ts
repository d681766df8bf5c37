// The table of weight formats. Code asks the record of a format and never compares its name.
import { BF16, F32 } from './float-weights.js'
import { INT4 } from './int4-weights.js'
import { INT8 } from './int8-weights.js'
import type { WeightFormat, WeightFormatRecord } from './weight-format.js'

/** In descending order of bytes. */
export const WEIGHT_FORMAT_NAMES = ['f32', 'bf16', 'int8', 'int4'] as const satisfies readonly WeightFormat[]

export const WEIGHT_FORMATS: Readonly<Record<WeightFormat, WeightFormatRecord>> = { f32: F32, bf16: BF16, int8: INT8, int4: INT4 }
