// MessagePack without anything that a reader would have to know beforehand: plain objects only.
import { Packr } from 'msgpackr/pack'
import { Unpackr } from 'msgpackr/unpack'

const packr = new Packr({ useRecords: false })
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true })

export function packMessage(message: object): Buffer {
  return packr.pack(message)
}

/** Throws RangeError or the like for what is no MessagePack. What it holds is the caller's to check. */
export function unpackMessage(bytes: Uint8Array): unknown {
  return unpackr.unpack(bytes)
}
