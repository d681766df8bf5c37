import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { loadChatTemplate, PLAIN, templateOf } from '../../src/tokenizer/chat-template.js'
import { PythonTemplate } from '../../src/tokenizer/template/python-jinja.js'
import { strftime } from '../../src/tokenizer/template/strftime.js'
import { FIXTURES } from '../support/fixtures.js'
import { temporary } from '../support/models.js'

const { context, cases } = JSON.parse(readFileSync(`${FIXTURES}templates/jinja2.json`, 'utf8')) as {
  context: Record<string, unknown>
  cases: { template: string; output: string }[]
}

test('templates render as Jinja2 3.1.6 renders them', (t) => {
  for (const { template, output } of cases) t.is(new PythonTemplate(template).render(context), output, template)
})

test('what the engine does not have is refused when the template is read', (t) => {
  for (const source of [
    '{{ x | batch(2) }}',
    '{{ x.encode() }}',
    '{{ lipsum(2) }}',
    '{{ x is divisibleby(3) }}',
    '{% include "x" %}',
    '{{ x',
    '{% if x %}',
  ]) {
    t.throws(() => templateOf({ source, bosToken: '', eosToken: '' }), undefined, source)
  }
  // Inside a branch that no conversation reaches, too.
  t.throws(() => templateOf({ source: '{% if false %}{{ x | batch(2) }}{% endif %}', bosToken: '', eosToken: '' }), { message: /the filter batch/ })
})

test('strftime has the directives of Python', (t) => {
  // Saturday; day 60 of a leap year.
  const date = new Date(2020, 1, 29, 0, 5, 9, 7)
  t.is(strftime(date, '%a %A %b %B %d %e %m %y %Y %H %I %M %S %p %f %j'), 'Sat Saturday Feb February 29 29 02 20 2020 00 12 05 09 AM 007000 060')
  t.is(strftime(date, '%U %W %V %G %u %w %F %D %T %R %C %% %-d %-H %_H'), '08 08 09 2020 6 6 2020-02-29 02/29/20 00:05:09 00:05 20 % 29 0  0')
  t.is(strftime(new Date(2024, 6, 4), '%d %B %Y'), '04 July 2024')
  t.is(strftime(date, '%c|%x|%X|%h%n'), 'Sat Feb 29 00:05:09 2020|02/29/20|00:05:09|Feb\n')
})

test('a null template is none; of a list the one called default is taken; CRLF and a byte order mark do not matter', async (t) => {
  const dir = temporary(t)
  const load = async (config: string) => {
    writeFileSync(join(dir, 'tokenizer_config.json'), config)
    return loadChatTemplate(dir)
  }
  const messages = [{ role: 'user', content: 'hi' }] as const
  t.is((await load('{"chat_template": null}')).origin, 'plain')
  const named = JSON.stringify({
    chat_template: [
      { name: 'tool_use', template: 'T' },
      { name: 'default', template: 'D{{ messages[0].content }}' },
    ],
  })
  t.is((await load(named)).render(messages), 'Dhi')
  t.is((await load(`\ufeff${JSON.stringify({ chat_template: 'a\r\n{{ messages[0].content }}\r\n' })}`)).render(messages), 'a\nhi')
  await t.throwsAsync(load('{"chat_template": 7}'), { code: 'TOKENIZER_INVALID' })
  await t.throwsAsync(load(JSON.stringify({ chat_template: '{{ x | batch(2) }}' })), { code: 'TOKENIZER_INVALID', message: /batch/ })
})

test('a rendering is bounded in time and memory, and the next one works', async (t) => {
  const fail = async (source: string) => templateOf({ source, bosToken: '', eosToken: '' }).prompt([{ role: 'user', content: 'x' }])
  const slow = '{% for a in range(10000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}'
  await t.throwsAsync(fail(slow), { code: 'TEMPLATE_FAILED', message: /2000 ms/ })
  await t.throwsAsync(fail("{{ raise_exception('roles must alternate') }}"), { code: 'TEMPLATE_FAILED', message: /roles must alternate/ })
  await t.throwsAsync(fail("{{ 'x' * 20000000 }}"), { code: 'TEMPLATE_FAILED', message: /20000000 characters/ })
  const { text } = await templateOf({ source: '{{ messages[0].content }}', bosToken: '', eosToken: '' }).prompt([
    { role: 'user', content: 'still here' },
  ])
  t.is(text, 'still here')
})

test('control tokens in a message are marked, those of the template are not', async (t) => {
  const template = templateOf({
    source: '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}',
    bosToken: '',
    eosToken: '',
    controlTokens: ['<|im_start|>', '<|im_end|>'],
  })
  const { text, mark } = await template.prompt([{ role: 'user', content: ' a<|im_end|>b ' }])
  t.is(text, `<|im_start|>user\na<${mark}|im_end|>b<|im_end|>\n`)
  t.is(template.render([{ role: 'user', content: ' a ' }]), '<|im_start|>user\na<|im_end|>\n')
  t.is((await PLAIN.prompt([{ role: 'user', content: 'x' }])).text, 'User: x\nAssistant:')
})
