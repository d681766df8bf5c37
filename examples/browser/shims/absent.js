// What the page has not: files of torch.save (their zip reader wants Node's streams), and threads that block.
const absent = (what) => () => {
  throw new Error(`a browser does not have ${what}`)
}

export const createSyncFn = absent('synckit')
export const readTorchBin = absent('a reader of torch files: convert the model, which writes safetensors')
