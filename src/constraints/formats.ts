// Formats of strings as regular expressions. Each matches texts of the format only, if not all of them.

const DATE = '\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))'
const TIME = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)'
const BYTE = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
const LABEL = '[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?'

/** Names of JSON Schema's formats that can be kept. No leap days. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  'date-time': `${DATE}T${TIME}`,
  uuid: '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}',
  email: `[a-z0-9_+-]{1,32}(\\.[a-z0-9_+-]{1,32})?@(${LABEL}\\.){1,3}[a-z]{2,16}`,
  ipv4: `(${BYTE}\\.){3}${BYTE}`,
  uri: `https?://(${LABEL}\\.){1,3}[a-z]{2,16}(/[a-zA-Z0-9._~-]{1,64}){0,8}`,
}
