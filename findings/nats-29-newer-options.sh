#!/usr/bin/env bash
# Guess:  a client that refuses stream options of newer servers by name refuses all of them.
# Seen:   @nats-io/jetstream 3.4.0 with nats-server 2.9 (Debian 12): options of 2.10 are refused ("requires
#         server 2.10.0"), but options of 2.11 pass without a word and do nothing: `allow_msg_ttl` and
#         a message's `ttl` (it never expires), and a consumer's `pause_until` (it is not paused).
#         consumers.pause() ends in a timeout, not in a refusal.
set -euo pipefail
dir=$(mktemp -d); trap 'kill $server 2>/dev/null || true; rm -rf "$dir"' EXIT; server=; cd "$dir"
apt-get download -qq nats-server=2.9.10-1+b3 2>/dev/null; dpkg -x nats-server_*.deb root
npm init -y >/dev/null
npm install --ignore-scripts --no-audit --no-fund @nats-io/transport-node@3.4.0 @nats-io/jetstream@3.4.0 >/dev/null
root/usr/sbin/nats-server -a 127.0.0.1 -p -1 --ports_file_dir "$dir" -js -sd "$dir/js" -l server.log & server=$!
until compgen -G "$dir/nats-server_*.ports" >/dev/null; do sleep 0.1; done
url=$(node -p "JSON.parse(fs.readFileSync(fs.readdirSync(\".\").find((f) => f.endsWith(\".ports\")), \"utf8\")).nats[0]")
cat > run.mjs <<'JS'
import assert from 'node:assert'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
const nc = await connect({ servers: process.argv[2] })
const [manager, client] = [await jetstreamManager(nc), jetstream(nc)]
const refusal = await manager.streams.add({ name: 'S', subjects: ['s'], compression: 's2' }).catch((e) => e.message)
const { config } = await manager.streams.add({ name: 'T', subjects: ['t'], allow_msg_ttl: true })
await client.publish('t', 'x', { ttl: '1s' })
const consumer = await manager.consumers.add('T', { durable_name: 'c', ack_policy: 'explicit', pause_until: '2099-01-01T00:00:00Z' })
const pause = await manager.consumers.pause('T', 'c', new Date('2099-01-01')).then(() => 'paused', (e) => e.name)
await new Promise((resolve) => setTimeout(resolve, 2500)) // beyond the message's time to live
const message = await (await client.consumers.get('T', 'c')).next({ expires: 2000 })
const seen = { server: nc.info.version, refusal, ttlKept: config.allow_msg_ttl, pausedKept: consumer.config.pause_until, pause, message: message?.string() }
console.log(seen)
assert.match(seen.server, /^2\.9\./)
assert.match(refusal, /requires server 2\.10/)
assert.deepEqual([seen.ttlKept, seen.pausedKept, seen.pause, seen.message], [undefined, undefined, 'TimeoutError', 'x'])
await nc.close()
JS
node run.mjs "$url"
