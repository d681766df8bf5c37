// Texts that tokenizers cut differently where they differ.

const PARTS = [
  ...['Hello', ' world', '  ', '\n', '\n\n', "it's", ' 123', '45678', '\u00e9', '\u65e5\u672c\u8a9e', '\ud83d\ude00', '\ufeff', 'ab', ' the', '\t'],
  ...['<|endoftext|>', '<s>', '</s>', '<|im_start|>', '[INST]', "'LL", '\u00a0', '\u3000', '\u0663', '\u2167', '\u200b', 'x'.repeat(30), ' \n '],
  ...['def f(x):\n    return x', '\r\n', '\ufb01', 'a\u0301', '\ud55c\uad6d', '\u0000', '\u2581', '<0x0A>', "don't", '{"a": 1}', '\u017f', '\u0130'],
]

/** 720 texts of random parts, the same in each run. */
export function tokenizerTexts(): string[] {
  let state = 5
  const next = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % n
  }
  return Array.from({ length: 720 }, () => Array.from({ length: 1 + next(14) }, () => PARTS[next(PARTS.length)]).join(''))
}
