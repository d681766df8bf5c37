// Paths are those of fetched files.
export const localModel = async (given) => given
