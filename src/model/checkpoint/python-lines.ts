// Python that turns a file that Tetrad refuses into one that it reads. Each line was written for torch 2.x.

const load = (file: string, safe = true) => `torch.load('${file}', map_location='cpu', weights_only=${safe ? 'True' : 'False'})`
const each = (file: string, value: string) => `{k: ${value} for k, v in ${load(file)}.items()}`
const save = (file: string, what: string) => `python -c "import torch; torch.save(${what}, '${file}')"`

/** file: name of the file, as the reader would type it. */
export const PYTHON = {
  /** Written before torch 1.6, or with _use_new_zipfile_serialization=False. */
  rewrite: (file: string) => save(file, load(file)),
  /** Copies without negative or conjugate bits. */
  resolve: (file: string) => save(file, each(file, 'v.resolve_conj().resolve_neg().clone()')),
  bfloat16: (file: string) => save(file, each(file, 'v.to(torch.bfloat16)')),
  dequantize: (file: string) => save(file, each(file, 'v.dequantize()')),
  dense: (file: string) => save(file, each(file, 'v.to_dense()')),
  /** In the training script: every rank must take part. */
  fullTensors: (file: string) =>
    `in the script that saved it, on every rank: torch.save({k: v.full_tensor() if hasattr(v, 'full_tensor') else v for k, v in model.state_dict().items()}, '${file}')`,
  /** Runs the code of the file. */
  stateDict: (file: string) => save(file, `${load(file, false)}.state_dict()`),
  /** Runs the code of the file. */
  only: (file: string, key: string) => save(file, `${load(file, false)}['${key}']`),
} as const
