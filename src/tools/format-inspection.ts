// An inspection as a person reads it.
import type { CacheCost, Inspection } from './inspect.js'

export function formatInspection(i: Inspection): string {
  const range = ([start, end]: readonly [number, number]) => (end > start ? `${start}..${end - 1}` : 'none')
  const lines = [
    `${i.dir}`,
    `variant      ${i.variant}, ${i.parameters.toLocaleString('en')} parameters, ${i.layers} layers, vocabulary ${i.vocab}, context ${i.contextTokens} tokens`,
    `stored       ${i.storedTypes.join(', ')} (${i.format})`,
    `runs as      ${i.backend}, weights ${i.weights}, cache ${i.cache}, ${i.ranks.length} ${i.ranks.length === 1 ? 'rank' : 'ranks'}, ${mib(i.memoryBytes)}, of which a cache for ${i.cacheTokens} tokens`,
    `key          ${i.determinismKey}`,
    `digest       ${i.determinismDigest}`,
    '',
    'rank  cache streams  query heads  projection heads  MLP rows    vocabulary    own weights  replicated',
    ...i.ranks.map((r) =>
      [
        String(r.rank).padEnd(4),
        r.streams.join(', ').padEnd(13),
        range(r.heads).padEnd(11),
        range(r.projectionHeads).padEnd(16),
        range(r.mlpRows).padEnd(10),
        range(r.vocabRows).padEnd(12),
        mib(r.shardedWeightBytes).padEnd(11),
        mib(r.replicatedWeightBytes),
      ].join('  '),
    ),
    `replicated: ${i.replicated.join(', ')}`,
    '',
    'KV cache of the fullest rank',
    ...costLines(i.kvCache, i.contextTokens),
    ...(i.asMlra4 ? ['the same with MLRA-4 of the same widths', ...costLines(i.asMlra4, i.contextTokens)] : []),
    ...skippedLines(i),
    ...gpuLines(i),
  ]
  return lines.join('\n')
}

function costLines(costs: readonly CacheCost[], context: number): string[] {
  return [
    `ranks  values per token and layer  bytes per token  read for a token at ${context} tokens`,
    ...costs.map((k) =>
      [
        String(k.ranks).padEnd(5),
        String(k.valuesPerTokenPerLayer).padEnd(26),
        String(k.bytesPerToken).padEnd(15),
        mib(k.bytesReadAtFullContext),
      ].join('  '),
    ),
  ]
}

function skippedLines({ skipped }: Inspection): string[] {
  return skipped.length === 0
    ? []
    : ['', 'not loaded: buffers that no model needs, and values that are no tensors', ...skipped.map((name) => `  ${name}`)]
}

function gpuLines({ gpu, layers }: Inspection): string[] {
  if (!gpu) return []
  const names = [...new Set(gpu.adapters.map((adapter) => `${adapter.device || adapter.description} (${adapter.description})`))]
  const shared = gpu.adapters.length === 1 ? '' : names.length === 1 ? `, shared by ${gpu.adapters.length} ranks` : ', rank i on the one at i mod n'
  const list = (dispatches: readonly { name: string; origin: string }[]) => dispatches.map(({ name, origin }) => `  ${name.padEnd(22)}${origin}`)
  return [
    '',
    `GPU  ${names.join(', ')}${shared}; ${gpu.readbacksPerToken} readbacks a token`,
    `dispatches of rank 0 for a token: ${layers} times these ${gpu.layer.length}, and by whom each kernel is`,
    ...list(gpu.layer),
    'and outside the layers',
    ...list(gpu.end),
  ]
}

/** What several variants of one configuration would cache. */
export function formatComparison(inspections: readonly Inspection[]): string {
  const values = (i: Inspection) => i.kvCache.map((k) => String(k.valuesPerTokenPerLayer).padEnd(7)).join('')
  return [
    `${inspections[0]?.dir}: the file fits several variants; name one for the whole plan (--variant)`,
    '',
    'KV values per token and layer of the fullest rank',
    'variant  parameters     1 rank 2      4',
    ...inspections.map((i) => `${i.variant.padEnd(9)}${i.parameters.toLocaleString('en').padEnd(15)}${values(i)}`.trimEnd()),
  ].join('\n')
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`
}
