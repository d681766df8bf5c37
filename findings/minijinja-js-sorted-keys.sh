#!/usr/bin/env bash
# Guess:  minijinja-js, by the author of Jinja2, shows a tool's JSON schema in a chat template as
#         Python does: keys in their own order.
# Seen:   minijinja-js 2.11.0 (pycompat on) sorts the keys of every object that comes from JavaScript, in
#         tojson and in items(), writes no space after ':' and ',', and escapes < > & and '. So the
#         prompt of every request with tools differs from the one that the model was trained on.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null; npm install --ignore-scripts --no-audit --no-fund minijinja-js@2.11.0 >/dev/null
python3 -m venv v; v/bin/pip install --quiet --disable-pip-version-check jinja2==3.1.6
echo '{"tool": {"type": "function", "name": "f", "description": "a < b"}}' > context.json
echo '{{ tool | tojson }} {% for k, v in tool.items() %}{{ k }} {% endfor %}' | tr -d '\n' > template.txt
cat > run.mjs <<'JS'
import { readFileSync } from 'node:fs'
import { Environment } from 'minijinja-js'
const env = new Environment()
env.enablePyCompat()
console.log(env.renderStr(readFileSync('template.txt', 'utf8'), JSON.parse(readFileSync('context.json', 'utf8'))))
JS
cat > run.py <<'PY'
import json
from jinja2.sandbox import ImmutableSandboxedEnvironment
env = ImmutableSandboxedEnvironment()
env.filters["tojson"] = lambda x: json.dumps(x, ensure_ascii=False)  # as transformers sets it
print(env.from_string(open("template.txt").read()).render(json.load(open("context.json"))))
PY
js=$(node run.mjs); py=$(v/bin/python run.py)
echo "minijinja-js: $js"; echo "Python:       $py"
[ "$py" = '{"type": "function", "name": "f", "description": "a < b"} type name description ' ]
[ "$js" = '{"description":"a \u003c b","name":"f","type":"function"} description name type ' ]
