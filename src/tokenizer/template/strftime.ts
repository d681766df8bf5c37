// Python's strftime in the C locale, for the date that chat templates put into a system prompt.

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December']
const DAY_MS = 86_400_000

/** `format` with every directive replaced; an unknown one stays as it is, as in glibc. Local time. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%([-_0]?)([a-zA-Z%])/g, (whole, flag: string, directive: string) => {
    const [text, width, fill] = directiveOf(date, directive) ?? []
    if (text === undefined) return whole
    if (width === undefined) return text
    return flag === '-' ? text : text.padStart(width, flag === '_' ? ' ' : flag === '0' ? '0' : fill)
  })
}

/** Text, and for numbers the width and what fills it. */
function directiveOf(date: Date, directive: string): [string, number?, string?] | undefined {
  const number = (n: number, width = 2, fill = '0'): [string, number, string] => [String(n), width, fill]
  const day = date.getDay()
  const yearDay = Math.round((startOfDay(date) - startOfDay(new Date(date.getFullYear(), 0, 1))) / DAY_MS)
  const hour12 = date.getHours() % 12 === 0 ? 12 : date.getHours() % 12
  const all = (format: string): [string] => [strftime(date, format)]
  switch (directive) {
    case 'a':
      return [(DAYS[day] as string).slice(0, 3)]
    case 'A':
      return [DAYS[day] as string]
    case 'b':
    case 'h':
      return [(MONTHS[date.getMonth()] as string).slice(0, 3)]
    case 'B':
      return [MONTHS[date.getMonth()] as string]
    case 'c':
      return all('%a %b %e %H:%M:%S %Y')
    case 'C':
      return number(Math.floor(date.getFullYear() / 100))
    case 'd':
      return number(date.getDate())
    case 'D':
    case 'x':
      return all('%m/%d/%y')
    case 'e':
      return number(date.getDate(), 2, ' ')
    case 'f':
      return number(date.getMilliseconds() * 1000, 6)
    case 'F':
      return all('%Y-%m-%d')
    case 'G':
      return [String(isoWeek(date).year)]
    case 'H':
      return number(date.getHours())
    case 'I':
      return number(hour12)
    case 'j':
      return number(yearDay + 1, 3)
    case 'k':
      return number(date.getHours(), 2, ' ')
    case 'l':
      return number(hour12, 2, ' ')
    case 'm':
      return number(date.getMonth() + 1)
    case 'M':
      return number(date.getMinutes())
    case 'n':
      return ['\n']
    case 'p':
      return [date.getHours() < 12 ? 'AM' : 'PM']
    case 'P':
      return [date.getHours() < 12 ? 'am' : 'pm']
    case 'r':
      return all('%I:%M:%S %p')
    case 'R':
      return all('%H:%M')
    case 's':
      return [String(Math.floor(date.getTime() / 1000))]
    case 'S':
      return number(date.getSeconds())
    case 't':
      return ['\t']
    case 'T':
    case 'X':
      return all('%H:%M:%S')
    case 'u':
      return [String(day === 0 ? 7 : day)]
    case 'U':
      return number(Math.floor((yearDay + 7 - day) / 7))
    case 'V':
      return number(isoWeek(date).week)
    case 'w':
      return [String(day)]
    case 'W':
      return number(Math.floor((yearDay + 7 - ((day + 6) % 7)) / 7))
    case 'y':
      return number(date.getFullYear() % 100)
    case 'Y':
      return [String(date.getFullYear())]
    // A naive datetime, as datetime.now() gives: Python prints nothing.
    case 'z':
    case 'Z':
      return ['']
    case '%':
      return ['%']
    default:
      return undefined
  }
}

/** Of a day in UTC, so that days are of equal length. */
function startOfDay(date: Date): number {
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate())
}

function isoWeek(date: Date): { year: number; week: number } {
  const thursday = new Date(startOfDay(date) + (4 - (date.getDay() === 0 ? 7 : date.getDay())) * DAY_MS)
  const year = thursday.getUTCFullYear()
  return { year, week: 1 + Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / (7 * DAY_MS)) }
}
