// The error of a config.json that says something that can't be run.
import { CheckpointError } from '../errors.js'

export function invalidConfig(what: string, expected: string, actual: string): CheckpointError {
  return new CheckpointError('CONFIG_INVALID', {
    what: `config.json: ${what}`,
    expected,
    actual,
    remedy: 'Use a checkpoint whose configuration can be cut.',
  })
}
