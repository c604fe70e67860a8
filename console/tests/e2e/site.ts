/** The site that the tests look at: its command line, its API under the site's token, and a browser that is signed in. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test as base, type Cookie, expect, type Page } from '@playwright/test';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
export const PLIMSOLL = process.env.PLIMSOLL ?? join(ROOT, 'target/debug/plimsoll');
export const BASE = Number(process.env.PORT_BASE ?? 19800);
export const SITE = `https://127.0.0.1:${BASE}`;

export interface Person {
  user: string;
  password: string;
}

export const ADMIN: Person = { user: 'anna', password: 'a plain long password' };
export const VIEWER: Person = { user: 'vera', password: 'another long password' };

export const data = () => process.env.PLIMSOLL_DATA ?? '';
const token = () => readFileSync(join(data(), 'site/api.token'), 'utf8').trim();

/** The command line, as a person has it. */
export function plimsoll(...args: string[]): string {
  return execFileSync(PLIMSOLL, args, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

export function queried(sql: string): Record<string, unknown>[] {
  return JSON.parse(plimsoll('query', '--data', data(), '--format', 'json', sql));
}

interface Answer {
  status: number;
  body: unknown;
  cookie: string | undefined;
}

/** A call under the site's token. */
export function call(method: string, path: string, body?: unknown): Promise<Answer> {
  return put(method, path, body, { Authorization: `Bearer ${token()}` });
}

function put(
  method: string,
  path: string,
  body: unknown,
  headers: Record<string, string>,
): Promise<Answer> {
  return new Promise((done, failed) => {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const asked = httpsRequest(
      SITE + path,
      {
        method,
        // The site's authority is its own; what is tested here is not TLS.
        rejectUnauthorized: false,
        headers: { ...headers, ...(sent ? { 'Content-Type': 'application/json' } : {}) },
      },
      answer => {
        let text = '';
        answer.setEncoding('utf8');
        answer.on('data', part => {
          text += part;
        });
        answer.on('end', () => {
          done({
            status: answer.statusCode ?? 0,
            body: text ? JSON.parse(text) : undefined,
            cookie: answer.headers['set-cookie']?.[0],
          });
        });
      },
    );
    asked.on('error', failed);
    asked.end(sent);
  });
}

/** The people of the tests. */
export async function firstUser() {
  const people = [
    { ...ADMIN, roles: ['administrator', 'releaser', 'security_officer'] },
    { ...VIEWER, roles: ['viewer'] },
  ];
  for (const { user, password, roles } of people) {
    const grants = roles.map(role => ({ role }));
    const answer = await call('POST', '/v1/users', { name: user, password, grants });
    if (answer.status >= 300) throw new Error(`making ${user}: ${JSON.stringify(answer)}`);
  }
}

/**
 * With CONSOLE_DIST set, the files of `dist/site` in the place of those that were compiled in: for trying a change without
 * building control anew. Calls go to the product all the same.
 */
export async function fromDist(page: Page) {
  if (!process.env.CONSOLE_DIST) return;
  const file = (name: string) => join(ROOT, 'console/dist/site', name);
  await page.route(/^[^?]*\/assets\//, route =>
    route.fulfill({ path: file(new URL(route.request().url()).pathname) }),
  );
  await page.route(/:\d+\/(console\/.*)?(\?.*)?$/, route =>
    route.fulfill({ path: file('index.html') }),
  );
}

export async function signIn(page: Page, who = ADMIN, at = '/') {
  await fromDist(page);
  await page.goto(SITE + at);
  await page.getByLabel('User').fill(who.user);
  await page.getByLabel('Password').fill(who.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page.getByRole('navigation', { name: 'Pages' })).toBeAttached();
}

/** What changed is on the screen: one frame draws it, the next one begins when that is done. */
export async function drawn(page: Page) {
  await page.evaluate(
    () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))),
  );
}

/** A call under somebody's session. */
export function callAs(session: SessionCookie, method: string, path: string, body?: unknown) {
  return put(method, path, body, {
    Cookie: `${session.name}=${session.value}`,
    Origin: SITE,
  });
}

export type SessionCookie = Pick<
  Cookie,
  'name' | 'value' | 'httpOnly' | 'secure' | 'sameSite'
> & { url: string };

/** A session, begun once: a password costs control as much as all the rest of a short test. */
export async function sessionOf(who: Person): Promise<SessionCookie> {
  const answer = await put('POST', '/v1/session', who, { Origin: SITE });
  const [, name = '', value = ''] = /^([^=]+)=([^;]+)/.exec(answer.cookie ?? '') ?? [];
  expect(answer.status, `signing in as ${who.user}`).toBe(200);
  return { name, value, url: SITE, httpOnly: true, secure: true, sameSite: 'Strict' };
}

/** A page of somebody who is signed in. What the browser complains of fails the test. */
export const test = base.extend<
  { mayRefuse: string[]; console: Page },
  { session: SessionCookie }
>({
  /** Paths at which a test is refused on purpose. */
  mayRefuse: [[], { option: true }],
  session: [
    // Playwright reads from the braces which fixtures are asked for.
    async ({}, use) => use(await sessionOf(ADMIN)),
    { scope: 'worker' },
  ],
  console: async ({ page, context, session, mayRefuse }, use) => {
    const complaints: string[] = [];
    page.on('pageerror', error => complaints.push(String(error)));
    page.on('console', message => {
      const isMeant = mayRefuse.some(path => message.location().url.startsWith(SITE + path));
      if (message.type() === 'error' && !isMeant) complaints.push(message.text());
    });
    await context.addCookies([session]);
    await fromDist(page);
    await page.goto(SITE);
    await expect(page.getByRole('navigation', { name: 'Pages' })).toBeAttached();
    await use(page);
    expect(complaints).toEqual([]);
  },
});

export { expect };
