#!/usr/bin/env bash
# Guess:  @huggingface/jinja renders a chat template as Python does, or throws where it cannot.
# Seen:   @huggingface/jinja 0.5.11 ignores the argument of strip, lstrip and rstrip: every kind of space
#         goes, not only the characters that are named. Qwen3's template says `content.lstrip('\n')`; an
#         answer that begins with an indented line loses its indentation, so the ids differ from Python's.
#         Jinja2 3.1.6 keeps it.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund @huggingface/jinja@0.5.11 >/dev/null
python3 -m venv v; v/bin/pip install --quiet --disable-pip-version-check jinja2==3.1.6
cat > cases.json <<'JSON'
["{{ content.lstrip('\\n') }}|", "{{ content.rstrip('.') }}|", "{{ 'xxaxx'.strip('x') }}|"]
JSON
cat > run.mjs <<'JS'
import { readFileSync } from 'node:fs'
import { Template } from '@huggingface/jinja'
const content = '\n    indented line.\n'
console.log(JSON.stringify(JSON.parse(readFileSync('cases.json', 'utf8')).map((t) => new Template(t).render({ content }))))
JS
cat > run.py <<'PY'
import json
from jinja2.sandbox import ImmutableSandboxedEnvironment
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
content = "\n    indented line.\n"
print(json.dumps([env.from_string(t).render(content=content) for t in json.load(open("cases.json"))]))
PY
node run.mjs > js.json; v/bin/python run.py > py.json
echo "JavaScript: $(cat js.json)"; echo "Python:     $(cat py.json)"
node -e "
const assert = require('node:assert')
const [js, py] = ['js.json', 'py.json'].map((f) => JSON.parse(fs.readFileSync(f, 'utf8')))
assert.deepEqual(py, ['    indented line.\n|', '\n    indented line.\n|', 'a|'])
assert.deepEqual(js, ['indented line.\n|', '\n    indented line.|', 'xxaxx|'])"
