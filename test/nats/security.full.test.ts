// Who is let in: passwords, tokens, certificates, and credentials signed by an operator.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createAccount, createOperator, createUser, type KeyPair } from '@nats-io/nkeys'
import type { ExecutionContext } from 'ava'
import { ClusterError } from '../../src/index.js'
import { Cluster } from '../../src/serve/nats/cluster.js'
import { NatsLink, type NatsOptions } from '../../src/serve/nats/connection.js'
import { temporary } from '../support/models.js'
import { natsServer, natsTest, replica, tetrad } from '../support/nats.js'

async function refused(t: ExecutionContext, options: NatsOptions): Promise<void> {
  const error = await t.throwsAsync(
    NatsLink.open(options, 'x', () => {}),
    { instanceOf: ClusterError },
  )
  t.is((error as ClusterError).code, 'NATS_UNREACHABLE')
  t.false(error?.message.includes('secret'), 'a password is in the message')
}

async function admitted(options: NatsOptions): Promise<void> {
  const link = await NatsLink.open(options, 'x', () => {})
  await link.nc.flush()
  await link.close()
}

natsTest(
  'a user and a password, or a token, from the address; wrong ones, other protocols, and a server that is not there are refused',
  async (t) => {
    t.timeout(60_000)
    const server = await natsServer(t, ['--user', 'me', '--pass', 's:e/cret'])
    const address = server.url.replace('nats://', '')
    await admitted({ url: `nats://me:${encodeURIComponent('s:e/cret')}@${address}` })
    for (const url of [`nats://me:secret@${address}`, server.url, 'nats://secret@127.0.0.1:1', 'http://127.0.0.1:1', 'nats://:::'])
      await refused(t, { url })
    const { ended, output } = tetrad(t, 'serve', '--nats', `nats://me:secret@${address}`)
    t.is((await ended)[0], 1)
    t.regex(output.err, /error NATS_UNREACHABLE/)
    const tokens = await natsServer(t, ['--auth', 'secret'])
    await admitted({ url: tokens.url.replace('//', '//secret@') })
    await refused(t, { url: tokens.url.replace('//', '//other-secret@') })
  },
)

natsTest('TLS: the server is verified by its authority, and the client by its certificate', async (t) => {
  t.timeout(60_000)
  const folder = temporary(t)
  const path = (name: string) => join(folder, name)
  const openssl = (...args: string[]) => {
    const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
  }
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  for (const name of ['ca', 'other'])
    openssl('req', '-x509', ...newKey, '-keyout', path(`${name}.key`), '-out', path(`${name}.pem`), '-subj', `/CN=${name}`)
  for (const name of ['server', 'client']) {
    openssl('req', ...newKey.slice(0, 5), '-keyout', path(`${name}.key`), '-out', path(`${name}.csr`), '-subj', `/CN=${name}`)
    writeFileSync(path('names'), 'subjectAltName=DNS:localhost')
    const by = ['-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-CAcreateserial', '-days', '2', '-extfile', path('names')]
    openssl('x509', '-req', '-in', path(`${name}.csr`), '-out', path(`${name}.pem`), ...by)
  }
  const server = await natsServer(t, ['--tlsverify', '--tlscert', path('server.pem'), '--tlskey', path('server.key'), '--tlscacert', path('ca.pem')])
  const url = server.url.replace('nats://127.0.0.1', 'tls://localhost')
  const own = { cert: path('client.pem'), key: path('client.key') }
  await admitted({ url, ca: path('ca.pem'), ...own })
  // Of an unknown authority, without a certificate, and files that are not there.
  await refused(t, { url, ca: path('other.pem'), ...own })
  await refused(t, { url, ...own })
  await refused(t, { url, ca: path('ca.pem') })
  await refused(t, { url, ca: path('none.pem') })
  const flags = ['--nats-ca', path('ca.pem'), '--nats-cert', own.cert, '--nats-key', own.key]
  const { group } = await replica(t, url, ...flags)
  const link = await NatsLink.open({ url, ca: path('ca.pem'), ...own }, 'front', () => {})
  const joined = await Cluster.join(link, () => {})
  t.is(joined.group('tiny'), group)
  await joined.close()
  await link.close()
})

natsTest('credentials signed by an operator’s account, with only the permissions that a front needs', async (t) => {
  t.timeout(60_000)
  const [operator, account, system, frontUser, member] = [createOperator(), createAccount(), createAccount(), createUser(), createUser()]
  const folder = temporary(t)
  const limits = { subs: -1, data: -1, payload: -1 }
  const all = {
    ...limits,
    imports: -1,
    exports: -1,
    wildcards: true,
    conn: -1,
    leaf: -1,
    mem_storage: -1,
    disk_storage: -1,
    streams: -1,
    consumer: -1,
  }
  writeFileSync(
    join(folder, 'nats.conf'),
    `operator: ${signed(operator, operator, { type: 'operator', version: 2 })}
resolver: MEMORY
system_account: ${system.getPublicKey()}
resolver_preload: {
  ${account.getPublicKey()}: ${signed(account, operator, { type: 'account', version: 2, limits: all })}
  ${system.getPublicKey()}: ${signed(system, operator, { type: 'account', version: 2, limits: { ...all, mem_storage: 0, disk_storage: 0 } })}
}
`,
  )
  const credentials = (user: KeyPair, name: string, permissions: object) => {
    const jwt = signed(user, account, { type: 'user', version: 2, ...limits, ...permissions })
    const path = join(folder, `${name}.creds`)
    const block = (what: string, text: string) => `-----BEGIN ${what}-----\n${text}\n------END ${what}------\n`
    writeFileSync(path, block('NATS USER JWT', jwt) + block('USER NKEY SEED', new TextDecoder().decode(user.getSeed())))
    return path
  }
  // As docs/several-machines.md has it.
  const ofFront = { pub: { allow: ['tetrad.run.>', 'tetrad.control.*', 'tetrad.describe.*', '$SRV.>'] }, sub: { allow: ['_INBOX.>'] } }
  const ofReplica = { pub: { allow: ['_INBOX.>'] }, sub: { allow: ['tetrad.run.>', 'tetrad.control.*', 'tetrad.describe.*', '$SRV.>'] } }
  const withBatches = ['$JS.API.>', '$JS.ACK.>']
  const ofBatch = { ...ofFront, pub: { allow: [...ofFront.pub.allow, 'tetrad.jobs.>', 'tetrad.results.*.open', ...withBatches] } }
  const ofWorker = {
    pub: { allow: [...ofReplica.pub.allow, 'tetrad.results.>', 'tetrad.jobs.>', ...withBatches] },
    sub: { allow: [...ofReplica.sub.allow, '_INBOX.>'] },
  }
  const server = await natsServer(t, ['-c', join(folder, 'nats.conf')])
  const creds = credentials(frontUser, 'front', ofFront)
  await refused(t, { url: server.url })
  await refused(t, { url: server.url, creds: join(folder, 'none.creds') })
  await replica(t, server.url, '--nats-creds', credentials(member, 'member', ofReplica), '--batch-jobs', '0')
  const link = await NatsLink.open({ url: server.url, creds }, 'front', () => {})
  const joined = await Cluster.join(link, () => {})
  const [answer] = (await joined.models.get('tiny')?.engine.generateMany(['Once upon'], { n: 1, maxTokens: 8, ignoreEos: true })) ?? []
  t.is(answer?.tokens.length, 8)
  await joined.close()
  await link.close()

  const { child, ended, instance } = await replica(t, server.url, '--nats-creds', credentials(createUser(), 'worker', ofWorker))
  t.truthy(instance)
  writeFileSync(
    join(folder, 'in.jsonl'),
    JSON.stringify({ custom_id: 'a', method: 'POST', url: '/v1/completions', body: { model: 'tiny', prompt: 'a' } }),
  )
  const files = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
  const batch = tetrad(t, 'batch', ...files, '--nats', server.url, '--nats-creds', credentials(createUser(), 'batch', ofBatch))
  t.is((await batch.ended)[0], 0, batch.output.err)
  t.notRegex(batch.output.err, /[Pp]ermission/)
  child.kill('SIGTERM')
  t.is((await ended)[0], 0)
})

/** A JWT about `subject`, as NATS has them. */
function signed(subject: KeyPair, issuer: KeyPair, nats: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = {
    jti: subject.getPublicKey(),
    iat: Math.floor(Date.now() / 1000),
    iss: issuer.getPublicKey(),
    sub: subject.getPublicKey(),
    name: 'test',
    nats,
  }
  const text = `${part({ typ: 'JWT', alg: 'ed25519-nkey' })}.${part(claims)}`
  return `${text}.${Buffer.from(issuer.sign(Buffer.from(text))).toString('base64url')}`
}
