/** A real site (`plimsoll up`) with a fleet that was there before: rows of its registry, written in bulk. */

import { execFileSync, spawn } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const DEVICES = Number(process.env.DEVICES ?? 100_000);
export const PLIMSOLL = process.env.PLIMSOLL ?? join(ROOT, 'target/release/plimsoll');
const UP_WITHIN_MS = 120_000;
/** Rows of one statement: SQLite takes so many terms of VALUES without looking twice. */
const ROWS = 500;

export class Site {
  constructor(port) {
    this.port = port;
    this.base = `https://127.0.0.1:${port}`;
    this.data = mkdtempSync(join(tmpdir(), 'plimsoll-bench-'));
    this.agent = new Agent({ keepAlive: true, maxSockets: 16, rejectUnauthorized: false });
  }

  /** The first start makes the site, the second one reads the fleet. */
  static async filled(port, fill) {
    const site = new Site(port);
    try {
      await site.start();
      await site.stop();
      fill(site);
      await site.start();
      return site;
    } catch (error) {
      await site.end();
      throw error;
    }
  }

  async start() {
    this.process = spawn(PLIMSOLL, ['up', '--data', this.data, '--port-base', String(this.port)], {
      cwd: ROOT,
      stdio: 'ignore',
    });
    const until = Date.now() + UP_WITHIN_MS;
    for (;;) {
      if (this.process.exitCode !== null)
        throw new Error(`plimsoll up ended with ${this.process.exitCode}`);
      if (Date.now() > until) throw new Error(`no site within ${UP_WITHIN_MS} ms`);
      const answer = await this.call('GET', '/healthz').catch(() => undefined);
      if (answer?.status === 200) return;
      await new Promise(later => setTimeout(later, 200));
    }
  }

  async stop() {
    if (!this.process || this.process.exitCode !== null) return;
    const ended = new Promise(done => this.process.once('exit', done));
    this.process.kill('SIGINT');
    await ended;
  }

  async end() {
    await this.stop();
    this.agent.destroy();
    rmSync(this.data, { recursive: true, force: true });
  }

  get token() {
    return readFileSync(join(this.data, 'site/api.token'), 'utf8').trim();
  }

  call(method, path, body, headers = {}) {
    return call(this.agent, this.base + path, method, body, headers);
  }

  sql(script) {
    execFileSync('sqlite3', [join(this.data, 'control/registry.sqlite')], { input: script });
  }

  /** Enrolled devices, each with its version, heard a moment ago; of eight zones, or of the gateway's own. */
  fill({ zone }) {
    const now = Date.now();
    this.sql(`
PRAGMA foreign_keys = off;
BEGIN;
CREATE TEMP TABLE n AS WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ${DEVICES}) SELECT n, printf('pump-%07d', n) AS id FROM n;
INSERT INTO ownership SELECT upper(id), id, 'device', ${zone}, ${now * 1000} FROM n;
INSERT INTO devices SELECT id, upper(id), 'device', ${zone}, iif(n % 1000 = 0, 'quarantined', 'enrolled'), ${now * 1000}, ${now * 1000}, ${now * 1000} FROM n;
INSERT INTO device_groups SELECT id, iif(n % 20 = 0, 'pilot', 'development'), ${now} FROM n WHERE n % 10 = 0;
INSERT INTO seen SELECT id, ${now} - n % 60 * 1000, 'gw-' || n % 40 FROM n;
INSERT INTO firmware SELECT id, 1, 'pump-app', '1.' || n % 7 || '.0', lower(hex(zeroblob(32))), 'confirmed', ${now} FROM n;
COMMIT;`);
  }

  /** A key for TLS and one that seals for each of them, Ed25519, under certificates of the usual length. */
  fillKeys() {
    const now = Date.now() * 1000;
    const until = now + 90 * 86_400_000_000;
    const rows = [];
    for (let n = 0; n < DEVICES; n += 1)
      for (const purpose of ['tls', 'seal']) {
        const spki = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'der' });
        const digest = createHash('sha256').update(spki).digest('hex');
        const id = thumbprint(spki.subarray(-32));
        const name = `pump-${String(n).padStart(7, '0')}`;
        rows.push(
          `('${digest}','${id}','${name}','${purpose}',x'${spki.toString('hex')}',zeroblob(${CERTIFICATE_BYTES}),${until},${now},NULL,NULL)`,
        );
      }
    const statements = [];
    for (let from = 0; from < rows.length; from += ROWS)
      statements.push(`INSERT INTO keys VALUES ${rows.slice(from, from + ROWS).join(',')};`);
    this.sql(`PRAGMA foreign_keys = off;\nBEGIN;\n${statements.join('\n')}\nCOMMIT;`);
  }

  /** What Linux says of each process of the site, in MiB: resident, by the name of its executable. */
  memory() {
    const all = [];
    const add = pid => {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      const of = name => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0) / 1024;
      all.push({ name: /^Name:\s+(.*)$/m.exec(status)[1], resident: of('VmRSS'), peak: of('VmHWM') });
      for (const task of readdirSync(`/proc/${pid}/task`)) {
        const children = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim();
        children.split(' ').filter(Boolean).forEach(add);
      }
    };
    add(this.process.pid);
    return all;
  }
}

/** Of a leaf of the site's, as they come. */
const CERTIFICATE_BYTES = 520;

/** The COSE Key Thumbprint (RFC 9679 §4) of an Ed25519 key. */
function thumbprint(key) {
  const head = Buffer.from('a301012006215820', 'hex');
  return createHash('sha256').update(Buffer.concat([head, key])).digest('hex');
}

/** Resolves when the answer is whole. */
export function call(agent, url, method, body, headers = {}) {
  return new Promise((done, failed) => {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const asked = request(
      url,
      {
        agent,
        method,
        headers: {
          ...headers,
          ...(sent ? { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(sent) } : {}),
        },
      },
      answer => {
        const chunks = [];
        answer.on('data', chunk => chunks.push(chunk));
        answer.on('error', failed);
        answer.on('end', () =>
          done({
            status: answer.statusCode,
            cookie: answer.headers['set-cookie']?.[0],
            body: Buffer.concat(chunks),
          }),
        );
      },
    );
    asked.on('error', failed);
    asked.end(sent);
  });
}

export function at(figures, share) {
  const sorted = figures.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
