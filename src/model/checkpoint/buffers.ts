// Buffers that models persist beside their weights and that decoding does not need: tables that are computed anew, masks, counters.
// They are skipped by name, and `inspect` lists them.

/** A tensor or value of a checkpoint that is not loaded. */
export interface SkippedEntry {
  readonly name: string
  /** As the file states it: 'BOOL', 'LongStorage', 'int'. */
  readonly type: string
  readonly shape: readonly number[]
}

/** Last component of a name. */
const TABLES =
  /^(original_)?inv_freq$|^(cos|sin)(_cached|_cache|_table)?$|^(cos_sin|rope|rotary)_(cache|table)$|^freqs(_cis|_cos|_sin|_complex)?$|^freq_cis$|^rotary_(emb|cos|sin)$/
const MASKS = /^(masked_bias|mask|attn_mask|attention_mask|causal_mask|causal_bias|_?causal|tril|triu|tril_mask|_?mask_cache|alibi(_slopes)?)$/
const POSITIONS = /^(position_ids|positions|pos_ids|cache_position|token_type_ids)$/
const COUNTERS =
  /^(num_batches_tracked|num_updates|_num_updates|n_averaged|step|steps|global_step|iter_num|iteration|epoch|num_tokens|tokens_seen|counter|_?step_count|initted|inited|version|dummy)$/

/** Whether a tensor of this name is such a buffer, whatever the model. */
export function isBuffer(name: string, shape: readonly number[]): boolean {
  const last = name.slice(name.lastIndexOf('.') + 1)
  if (TABLES.test(last) || MASKS.test(last) || POSITIONS.test(last)) return true
  const elements = shape.reduce((n, d) => n * d, 1)
  if (COUNTERS.test(last)) return elements <= 1
  // GPT-2 keeps its causal mask as `attn.bias` [1, 1, T, T]; a bias is a vector.
  return last === 'bias' && shape.length >= 2 && shape.at(-1) === shape.at(-2)
}
