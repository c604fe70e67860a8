/** Starts `plimsoll up` for the tests, waits until its devices are heard, and ends it afterwards. */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BASE, firstUser, PLIMSOLL, queried, ROOT } from './site.ts';

const HEARD_WITHIN_MS = 180_000;
const ENDS_WITHIN_MS = 20_000;

export default async function up() {
  if (!existsSync(PLIMSOLL))
    throw new Error(`${PLIMSOLL} is not there: run \`make build\`, or set PLIMSOLL`);
  const data = mkdtempSync(join(tmpdir(), 'plimsoll-console-'));
  process.env.PLIMSOLL_DATA = data;
  const log = join(data, '..', `${data.split('/').at(-1)}.log`);
  const out = openSync(log, 'w');
  const site = spawn(PLIMSOLL, ['up', '--data', data, '--port-base', String(BASE)], {
    cwd: ROOT,
    stdio: ['ignore', out, out],
  });
  try {
    await heard(site, log);
    await firstUser();
  } catch (error) {
    await end(site);
    throw error;
  }
  return async () => {
    await end(site);
    rmSync(data, { recursive: true, force: true });
  };
}

/** Both devices have said something that the store answers with. */
async function heard(site: ChildProcess, log: string) {
  const until = Date.now() + HEARD_WITHIN_MS;
  for (;;) {
    if (site.exitCode !== null)
      throw new Error(`plimsoll up ended with ${site.exitCode}: see ${log}`);
    if (Date.now() > until)
      throw new Error(`no device was heard within ${HEARD_WITHIN_MS} ms: see ${log}`);
    if (existsSync(join(process.env.PLIMSOLL_DATA ?? '', 'site/api.token'))) {
      const devices = tried(() => queried('select count(distinct device) as n from readings'));
      if (devices?.[0]?.n === 2) return;
    }
    await new Promise(done => setTimeout(done, 500));
  }
}

function tried<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

async function end(site: ChildProcess) {
  if (site.exitCode !== null) return;
  const ended = new Promise(done => site.once('exit', done));
  site.kill('SIGINT');
  const late = setTimeout(() => site.kill('SIGKILL'), ENDS_WITHIN_MS);
  await ended;
  clearTimeout(late);
}
