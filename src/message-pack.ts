// MessagePack for sockets, NATS and snapshot files: plain maps and binary only. No records, whose definitions a sender could bring along, and
// no extensions that build classes.
import { Packr } from 'msgpackr/pack'
import { Unpackr } from 'msgpackr/unpack'

const packr = new Packr({ useRecords: false })
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true })

export function packMessage(message: unknown): Buffer {
  return packr.pack(message)
}

/** Throws RangeError, or another error of msgpackr, for bytes that are not MessagePack. The caller checks what the value is. */
export function unpackMessage(bytes: Uint8Array): unknown {
  return unpackr.unpack(bytes)
}
