// GGML's blocks of 32 values (kernels/ggml-blocks.ts draws them): to float32, and to int8 and int4 blocks that stand for the same values.
// int8.ts and int4.ts draw those. A float16 scale is finite.
import { widenHalf } from './packing-int4'

/** Index of the first of n blocks of `bytes` bytes whose scale is not finite, or -1. */
export function nonFiniteBlocks(p: usize, n: i32, bytes: usize): i32 {
  for (let i = 0; i < n; i++, p += bytes) if ((load<u16>(p) & 0x7c00) == 0x7c00) return i
  return -1
}

/** Index of the first of n finite float32 values whose magnitude is above `limit`, or -1. */
export function firstAbove(p: usize, n: i32, limit: f32): i32 {
  const most = f32x4.splat(limit)
  let i = 0
  for (; i + 4 <= n; i += 4) if (v128.any_true(f32x4.gt(f32x4.abs(v128.load(p + (<usize>i << 2))), most))) break
  for (; i < n; i++) if (abs<f32>(load<f32>(p + (<usize>i << 2))) > limit) return i
  return -1
}

// @ts-ignore: decorator
@inline function storeScaled(dst: usize, eight: v128, scale: v128): void {
  v128.store(dst, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(eight)), scale))
  v128.store(dst, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(eight)), scale), 16)
}

// @ts-ignore: decorator
@inline function storeValues(dst: usize, bytes: v128, scale: v128): void {
  storeScaled(dst, i16x8.extend_low_i8x16_s(bytes), scale)
  storeScaled(dst + 32, i16x8.extend_high_i8x16_s(bytes), scale)
}

/** n values of Q8_0 as float32. */
export function widenQ8(src: usize, dst: usize, n: usize): void {
  for (let i: usize = 0; i < n; i += 32, src += 34, dst += 128) {
    const scale = f32x4.splat(widenHalf(load<u16>(src)))
    storeValues(dst, v128.load(src, 2), scale)
    storeValues(dst + 64, v128.load(src, 18), scale)
  }
}

// @ts-ignore: decorator
@inline function lowHalves(w: v128): v128 { return i8x16.sub(v128.and(w, i8x16.splat(15)), i8x16.splat(8)) }

// @ts-ignore: decorator
@inline function highHalves(w: v128): v128 { return i8x16.sub(i8x16.shr_u(w, 4), i8x16.splat(8)) }

/** n values of Q4_0 as float32. */
export function widenQ4(src: usize, dst: usize, n: usize): void {
  for (let i: usize = 0; i < n; i += 32, src += 18, dst += 128) {
    const scale = f32x4.splat(widenHalf(load<u16>(src)))
    const pairs = v128.load(src, 2)
    storeValues(dst, lowHalves(pairs), scale)
    storeValues(dst + 64, highHalves(pairs), scale)
  }
}

/** Whole tiles of 16 rows of Q4_0, rows `stride` bytes apart, to int4 blocks [tiles][blocks]. */
export function placeTilesQ4Int4(src: usize, stride: usize, tiles: usize, blocks: usize, dst: usize): void {
  for (let tile: usize = 0; tile < tiles; tile++, src += stride << 4) {
    for (let b: usize = 0; b < blocks; b++, dst += 288) {
      for (let r: usize = 0, p = src + b * 18, out = dst; r < 16; r++, p += stride, out += 4) {
        store<u32>(out, load<u32>(p, 2)); store<u32>(out, load<u32>(p, 6), 64)
        store<u32>(out, load<u32>(p, 10), 128); store<u32>(out, load<u32>(p, 14), 192)
        store<u16>(dst + 256 + (r << 1), load<u16>(p))
      }
    }
  }
}

/** 16 integers of a row to 4 groups of an int8 block; returns their sum in 4 lanes. */
// @ts-ignore: decorator
@inline function storeGroups(out: usize, bytes: v128): v128 {
  v128.store32_lane(out, bytes, 0); v128.store32_lane(out, bytes, 1, 64)
  v128.store32_lane(out, bytes, 2, 128); v128.store32_lane(out, bytes, 3, 192)
  return i32x4.dot_i16x8_s(i16x8.add(i16x8.extend_low_i8x16_s(bytes), i16x8.extend_high_i8x16_s(bytes)), i16x8.splat(1))
}

// @ts-ignore: decorator
@inline function storeRow(block: usize, r: usize, first: v128, second: v128, scale: u32): void {
  const out = block + (r << 2)
  const s = i32x4.add(storeGroups(out, first), storeGroups(out + 256, second))
  const sum = i32x4.extract_lane(s, 0) + i32x4.extract_lane(s, 1) + i32x4.extract_lane(s, 2) + i32x4.extract_lane(s, 3)
  store<f32>(block + 512 + (r << 2), widenHalf(scale))
  store<i16>(block + 576 + (r << 1), <i16>sum)
}

/** The same of Q8_0 to int8 blocks. */
export function placeTilesQ8Int8(src: usize, stride: usize, tiles: usize, blocks: usize, dst: usize): void {
  for (let tile: usize = 0; tile < tiles; tile++, src += stride << 4) {
    for (let b: usize = 0; b < blocks; b++, dst += 608) {
      for (let r: usize = 0, p = src + b * 34; r < 16; r++, p += stride) storeRow(dst, r, v128.load(p, 2), v128.load(p, 18), load<u16>(p))
    }
  }
}

/** The same of Q4_0 to int8 blocks. */
export function placeTilesQ4Int8(src: usize, stride: usize, tiles: usize, blocks: usize, dst: usize): void {
  for (let tile: usize = 0; tile < tiles; tile++, src += stride << 4) {
    for (let b: usize = 0; b < blocks; b++, dst += 608) {
      for (let r: usize = 0, p = src + b * 18; r < 16; r++, p += stride) {
        const pairs = v128.load(p, 2)
        storeRow(dst, r, lowHalves(pairs), highHalves(pairs), load<u16>(p))
      }
    }
  }
}
