// The thread that renders chat templates.
import { PythonTemplate } from './python-jinja.js'
import { RENDER_LIMITS, type RenderTask } from './render-limits.js'

const templates = new Map<string, PythonTemplate>()

export default function render({ source, context }: RenderTask): string {
  let template = templates.get(source)
  if (!template) {
    if (templates.size >= 16) templates.clear()
    template = new PythonTemplate(source)
    templates.set(source, template)
  }
  const text = template.render(context)
  if (text.length > RENDER_LIMITS.characters) throw new Error(`it rendered ${text.length} characters`)
  return text
}
