// The public surface, by its declaration files: what it refers to is exported, and what it exports is documented.
import { join } from 'node:path'
import test from 'ava'
import ts from 'typescript'
import { ROOT } from './support/fixtures.js'

const DIST = join(ROOT, 'dist')

/** Declarations of this package that an entry point exports, by symbol. */
function surface(entry: string): { exported: Map<ts.Symbol, string>; checker: ts.TypeChecker } {
  const path = join(DIST, 'src', entry)
  const program = ts.createProgram([path], {
    target: ts.ScriptTarget.ES2023,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    lib: ['lib.es2024.d.ts', 'lib.esnext.disposable.d.ts'],
    types: ['node'],
    skipLibCheck: true,
  })
  const checker = program.getTypeChecker()
  const file = program.getSourceFile(path)
  const module = file && checker.getSymbolAtLocation(file)
  const exported = new Map<ts.Symbol, string>()
  for (const symbol of module ? checker.getExportsOfModule(module) : []) exported.set(original(checker, symbol), symbol.name)
  return { exported, checker }
}

function original(checker: ts.TypeChecker, symbol: ts.Symbol): ts.Symbol {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
}

function isOwn(symbol: ts.Symbol): boolean {
  return symbol.declarations?.some((d) => d.getSourceFile().fileName.startsWith(DIST)) ?? false
}

function isPrivate(node: ts.Node): boolean {
  return (
    ts.isPrivateIdentifier(node) ||
    (ts.canHaveModifiers(node) && (ts.getModifiers(node)?.some((m) => m.kind === ts.SyntaxKind.PrivateKeyword) ?? false))
  )
}

/** Names of this package's types that a declaration refers to, and that are neither exported nor type parameters. */
function missing(node: ts.Node, checker: ts.TypeChecker, exported: ReadonlyMap<ts.Symbol, string>): string[] {
  const found: string[] = []
  const visit = (child: ts.Node) => {
    if (isPrivate(child)) return
    const name = ts.isTypeReferenceNode(child)
      ? child.typeName
      : ts.isExpressionWithTypeArguments(child)
        ? child.expression
        : ts.isImportTypeNode(child)
          ? child.qualifier
          : undefined
    const symbol = name && checker.getSymbolAtLocation(name)
    if (symbol) {
      const target = original(checker, symbol)
      if (isOwn(target) && !(target.flags & ts.SymbolFlags.TypeParameter) && !exported.has(target)) found.push(target.name)
    }
    ts.forEachChild(child, visit)
  }
  visit(node)
  return found
}

function isDocumented(node: ts.Node): boolean {
  return ts.getJSDocCommentsAndTags(node).length > 0
}

for (const entry of ['index.d.ts', 'testing.d.ts']) {
  test(`${entry}: every type that it refers to is exported from tetrad or tetrad/testing`, (t) => {
    const { exported, checker } = surface(entry)
    t.true(exported.size > 5)
    const others = new Set(entry === 'index.d.ts' ? [] : surface('index.d.ts').exported.values())
    const open = [...exported].flatMap(([symbol, name]) =>
      (symbol.declarations ?? []).flatMap((d) => missing(d, checker, exported).map((type) => `${type} (of ${name})`)),
    )
    t.deepEqual([...new Set(open)].filter((found) => !others.has(found.split(' ')[0] ?? '')).sort(), [])
  })
}

test('every export of tetrad, and every method of a class, has a comment', (t) => {
  const { exported } = surface('index.d.ts')
  const bare = [...exported].flatMap(([symbol, name]) =>
    (symbol.declarations ?? []).flatMap((declaration) => {
      const holder = ts.isVariableDeclaration(declaration) ? declaration.parent.parent : declaration
      const own = isDocumented(holder) ? [] : [name]
      if (!ts.isClassDeclaration(declaration)) return own
      const members = declaration.members.filter((m) => !isPrivate(m) && m.name && !ts.isPrivateIdentifier(m.name) && !ts.isConstructorDeclaration(m))
      // What a base class or a protocol documents needs no comment here.
      const known = /^(\[Symbol|name$|then$|catch$|finally$)/
      return [...own, ...members.flatMap((m) => (isDocumented(m) || known.test(m.name?.getText() ?? '') ? [] : [`${name}.${m.name?.getText()}`]))]
    }),
  )
  t.deepEqual(bare, [])
})
