// What a rendering is given, and its limits. Imported by both threads.

export interface RenderTask {
  /** Jinja. */
  readonly source: string
  readonly context: Readonly<Record<string, unknown>>
}

/** A rendering that takes longer, or needs more, fails its request. */
export const RENDER_LIMITS = { timeMs: 2000, heapMiB: 128, characters: 16_000_000 } as const
