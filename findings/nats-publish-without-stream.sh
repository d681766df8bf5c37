#!/usr/bin/env bash
# Guess:  publishing to a subject that no JetStream stream covers fails with "no stream".
# Seen:   @nats-io/jetstream 3.4.0 with nats-server 2.9 (Debian 12): the error is JetStreamNotEnabled,
#         "jetstream is not enabled", although JetStream is enabled and has a stream for another
#         subject. A misspelled subject sends the reader to the server's configuration.
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
await (await jetstreamManager(nc)).streams.add({ name: 'S', subjects: ['jobs.*'] })
const client = jetstream(nc)
const stored = await client.publish('jobs.one', 'x')
const error = await client.publish('job.one', 'x').catch((e) => e)
console.log({ stored: stored.seq, error: `${error.constructor.name}: ${error.message}` })
assert.equal(stored.seq, 1)
assert.equal(error.constructor.name, 'JetStreamNotEnabled')
await nc.close()
JS
node run.mjs "$url"
