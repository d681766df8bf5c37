// URLs of the server's files.
export const EMBEDDED_MODEL = '/models/tiny-packed'
export const assetUrl = (path) => new URL(`/${path}`, location.origin)
