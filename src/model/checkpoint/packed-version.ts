// Version of the layout of packed matrices and of their names in a converted checkpoint; another one is refused.
export const PACKED_VERSION = 3
