// Which device each rank asks for, without any: names, PCI addresses, and fewer of them than ranks.

import { availableParallelism } from 'node:os'
import test from 'ava'
import { deviceEnvironment, isPciAddress, requestOf } from '../../kernels/gpu/adapter.js'
import { resolveOptions } from '../../src/engine/choose-backend.js'
import { automaticRanks, checkOptions, resolveFor } from '../../src/options/engine-options.js'

const settings = (adapters: readonly string[]) => ({ adapters, checks: true, kernels: 'auto' as const })
const ranks = (adapters: readonly string[], count: number) => Array.from({ length: count }, (_, rank) => requestOf(settings(adapters), rank).adapter)

test('without names all ranks take the first adapter; with fewer names than ranks they are shared in turn', (t) => {
  t.deepEqual(ranks([], 4), [undefined, undefined, undefined, undefined])
  t.deepEqual(ranks(['A', 'B'], 4), ['A', 'B', 'A', 'B'])
  t.deepEqual(ranks(['A', 'B', 'C', 'D'], 4), ['A', 'B', 'C', 'D'])
  t.is(deviceEnvironment(settings(['A']), 0), undefined)
  t.is(deviceEnvironment(settings([]), 3), undefined)
})

test("'auto' ranks: by the cores on a CPU, on a GPU one, or one for each adapter that is named", async (t) => {
  const automatic = (adapter?: readonly string[]) => resolveFor('gpu', checkOptions(adapter && { adapter })).ranks
  t.is(automatic(), 1)
  t.deepEqual([['A'], ['A', 'B'], ['A', 'B', 'C'], ['A', 'B', 'C', 'D']].map(automatic), [1, 2, 2, 4])
  t.is(resolveFor('wasm', checkOptions()).ranks, automaticRanks(availableParallelism()))
  t.is(resolveFor('gpu', checkOptions({ ranks: 4 })).ranks, 4)
  // What the GPU has not is no reason to fail where nobody asked for it.
  const { options, backendReason } = await resolveOptions(checkOptions({ cache: 'int8' }))
  t.is(options.backend, 'wasm')
  t.regex(backendReason, /int8/)
  t.is(options.ranks, automaticRanks(availableParallelism()))
})

test('a PCI address selects a device by the environment of each rank, not by a name', (t) => {
  const cards = ['pci-0000_00_06_0', 'pci-0000_00_07_0', 'pci-0000_65_00_0', 'pci-0001_c1_00_1']
  for (const count of [1, 2, 4]) {
    const own = cards.slice(0, count)
    t.deepEqual(ranks(own, 4), [undefined, undefined, undefined, undefined])
    t.deepEqual(
      Array.from({ length: 4 }, (_, rank) => deviceEnvironment(settings(own), rank)?.DRI_PRIME),
      Array.from({ length: 4 }, (_, rank) => own[rank % count]),
    )
  }
  for (const name of ['pci-0000:00:06.0', 'PCI-0000_00_06_0', 'pci-0000_00_06', 'NVIDIA H100', '']) t.false(isPciAddress(name), name)
})
