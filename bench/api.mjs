/**
 * What a site costs over a fleet of 100,000 devices that its gateway knows, all of it: how long calls of the API take, and
 * how much memory its processes hold. Prints Markdown.
 *
 *   bench/run api         the same with what it needs: a release build, sqlite3
 *   node bench/api.mjs    with target/release/plimsoll, or what PLIMSOLL names
 *
 * One call at a time and four at a time, over connections that are kept. Beside each answer stands nginx, with as many bytes
 * of a constant, under TLS 1.3 and the same client, in turns: what of it is the way there and back. DEVICES (100000), CALLS
 * (1000, of each kind and round), ROUNDS (3).
 */

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { at, call, DEVICES, Site } from './site.mjs';

const CALLS = Number(process.env.CALLS ?? 1_000);
const ROUNDS = Number(process.env.ROUNDS ?? 3);
const PORT = Number(process.env.PORT_BASE ?? 21900);
const NGINX = '/usr/sbin/nginx';
const SERVES_WITHIN_MS = 10_000;

const id = n => `pump-${String(n % DEVICES).padStart(7, '0')}`;
/** Spread over the fleet, so that no answer is the one before. */
const drawn = n => (n * 7919) % DEVICES;

const KINDS = [
  ['a page of 100 devices', n => ['GET', `/v1/inventory?limit=100&after=${id(drawn(n))}`]],
  ['devices searched for by a part of the name', n => ['GET', `/v1/inventory?search=${String(drawn(n)).padStart(7, '0')}`]],
  ['how many there are of each kind', () => ['GET', '/v1/inventory/summary']],
  ['one device, whole', n => ['GET', `/v1/devices/${id(drawn(n))}`]],
  ['the newest rollouts', () => ['GET', '/v1/rollouts?limit=20']],
  // Durable with its event, and in the evidence log: each is another device.
  ['a device is quarantined', n => ['POST', `/v1/devices/${id(drawn(n))}/quarantine`]],
];

const site = await Site.filled(PORT, site => {
  // `up` puts its gateway there.
  site.fill({ zone: "'hall'" });
  site.fillKeys();
});
let peer;
try {
  const headers = { Authorization: `Bearer ${site.token}` };
  const before = await settled();
  console.log(`${DEVICES.toLocaleString('en')} devices with two keys each, all behind one gateway.\n`);
  console.log('| call | at a time | p50, ms | p99, ms | nginx p50, ms | nginx p99, ms | p50, ours / nginx |');
  console.log('| --- | --: | --: | --: | --: | --: | --: |');
  let number = 0;
  for (const [name, asked] of KINDS) {
    const [method, path] = asked(number);
    const changes = method === 'POST';
    const bytes = (await site.call(method, path, undefined, headers)).body.length;
    number += 1;
    peer = changes ? undefined : await nginx(bytes);
    for (const wide of [1, 4]) {
      const ours = [];
      const theirs = [];
      const calls = changes ? Math.min(CALLS, 200) : CALLS;
      for (let round = 0; round < ROUNDS; round += 1) {
        const from = number;
        number += calls;
        ours.push(...(await timed(calls, wide, n => site.call(...asked(from + n), undefined, headers))));
        if (peer) theirs.push(...(await timed(calls, wide, () => call(site.agent, peer.url, 'GET'))));
      }
      const figure = all => (all.length ? at(all, 0.5).toFixed(2) : '–');
      const last = all => (all.length ? at(all, 0.99).toFixed(2) : '–');
      const ratio = theirs.length ? (at(ours, 0.5) / at(theirs, 0.5)).toFixed(1) : '–';
      console.log(`| ${name}${peer ? `, ${bytes.toLocaleString('en')} bytes` : ''} | ${wide} | ${figure(ours)} | ${last(ours)} | ${figure(theirs)} | ${last(theirs)} | ${ratio} |`);
    }
    peer?.stop();
    peer = undefined;
  }
  const after = site.memory();
  console.log('\n| process | resident when it has started, MiB | after the calls | at most |');
  console.log('| --- | --: | --: | --: |');
  const sum = (all, of) => all.reduce((sum, one) => sum + one[of], 0);
  after.forEach((one, n) => {
    console.log(`| ${one.name} | ${before[n].resident.toFixed(0)} | ${one.resident.toFixed(0)} | ${one.peak.toFixed(0)} |`);
  });
  console.log(`| all of it | ${sum(before, 'resident').toFixed(0)} | ${sum(after, 'resident').toFixed(0)} | ${sum(after, 'peak').toFixed(0)} |`);
} finally {
  peer?.stop();
  await site.end();
}

/** The gateway has the whole fleet, and nobody grows any more. */
async function settled() {
  let last = 0;
  for (;;) {
    await new Promise(later => setTimeout(later, 3_000));
    const all = site.memory();
    const now = all.reduce((sum, one) => sum + one.resident, 0);
    if (Math.abs(now - last) < 2) return all;
    last = now;
  }
}

async function timed(calls, wide, make) {
  const took = [];
  let next = 0;
  const one = async () => {
    while (next < calls) {
      const n = next;
      next += 1;
      const began = performance.now();
      const { status, body } = await make(n);
      took.push(performance.now() - began);
      if (status !== 200) throw new Error(`${status}: ${body}`);
    }
  };
  await Promise.all(Array.from({ length: wide }, one));
  return took;
}

/** One process, that answers so many bytes. `undefined`: there is none here. */
async function nginx(bytes) {
  if (!existsSync(NGINX)) return undefined;
  const dir = join(site.data, 'nginx');
  mkdirSync(dir, { recursive: true });
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', join(dir, 'key.pem'), '-out', join(dir, 'tls.pem')], { stdio: 'ignore' });
  writeFileSync(join(dir, 'answer.json'), 'x'.repeat(bytes));
  const port = PORT + 20;
  writeFileSync(
    join(dir, 'nginx.conf'),
    `user root; daemon off; master_process off; pid ${dir}/pid; error_log ${dir}/error.log; events {}
http { access_log off; client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy; fastcgi_temp_path ${dir}/f;
uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s; server { listen 127.0.0.1:${port} ssl; keepalive_requests 100000000;
ssl_protocols TLSv1.3; ssl_certificate ${dir}/tls.pem; ssl_certificate_key ${dir}/key.pem; root ${dir}; } }`,
  );
  const child = spawn(NGINX, ['-p', dir, '-c', join(dir, 'nginx.conf')], { stdio: 'ignore' });
  const url = `https://127.0.0.1:${port}/answer.json`;
  const until = Date.now() + SERVES_WITHIN_MS;
  for (;;) {
    const answer = await call(site.agent, url, 'GET').catch(() => undefined);
    if (answer?.status === 200) break;
    if (child.exitCode !== null || Date.now() > until) throw new Error(`nginx does not serve: see ${dir}/error.log`);
    await new Promise(later => setTimeout(later, 50));
  }
  return { url, stop: () => child.kill() };
}
