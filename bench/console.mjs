/**
 * What the console costs a browser over a fleet of 100,000 devices: first paint, the first rows, typing into the search,
 * scrolling. Prints Markdown.
 *
 *   bench/run console          the same with what it needs: a release build, Chromium, sqlite3
 *   node bench/console.mjs     with target/release/plimsoll, or what PLIMSOLL names
 *
 * A real site (`plimsoll up`) has the devices in its registry, and a real Chromium looks at it under a person's session.
 * Beside it, in turns, stands what one would write first: a page that asks for the whole fleet by the same calls, draws
 * every row into one table, and hides those that do not fit what is typed. DEVICES (100000), ROUNDS (5).
 */

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { at, DEVICES, ROOT, Site } from './site.mjs';

const { chromium } = createRequire(join(ROOT, 'console/package.json'))('@playwright/test');

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const PERSON = { user: 'anna', password: 'a plain long password' };
/** Of the last device but one: nobody else has it in his name. */
const SOUGHT = String(DEVICES - 2).padStart(7, '0');
const SCROLLS_MS = 3_000;

const site = await Site.filled(Number(process.env.PORT_BASE ?? 21800), site =>
  site.fill({ zone: "'hall-' || n % 8" }),
);
try {
  const cookie = await signedIn();
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  });
  const ours = [];
  const naive = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    ours.push(await measured(browser, cookie, OURS));
    naive.push(await measured(browser, cookie, NAIVE));
  }
  print(browser.version(), ours, naive);
  await browser.close();
} finally {
  await site.end();
}

/** The console's fleet page. */
function OURS() {
  return {
    path: '/console/fleet',
    row: '[role="grid"] .rows [role="row"] a',
    scrolls: '[role="grid"]',
    search: '#search',
    shown: '[role="grid"] .rows [role="row"] a',
  };
}

/** All rows in one table. */
function NAIVE() {
  return {
    path: '/console/naive',
    row: 'tbody tr td:first-child',
    scrolls: 'html',
    search: '#search',
    shown: 'tbody tr:not([hidden]) td:first-child',
    html: `<!doctype html><meta charset="utf-8"><title>All of it</title>
<style>body{font:14px sans-serif}td{padding:6px 10px;border-bottom:1px solid #ddd}</style>
<h1>Fleet</h1><input id="search"><table><tbody></tbody></table>
<script type="module">
const rows = [];
for (let after; ; ) {
  const page = await (await fetch('/v1/inventory?limit=1000' + (after ? '&after=' + after : ''))).json();
  rows.push(...page.devices);
  if (!(after = page.next)) break;
}
const body = document.querySelector('tbody');
body.append(...rows.map(line => {
  const row = document.createElement('tr');
  row.append(...[line.id, line.standing, line.product + ' ' + line.version, line.group, line.zone, line.gateway].map(text => {
    const cell = document.createElement('td');
    cell.textContent = text;
    return cell;
  }));
  return row;
}));
document.querySelector('#search').addEventListener('input', event => {
  const sought = event.target.value.toLowerCase();
  [...body.children].forEach((row, i) => { row.hidden = !rows[i].id.includes(sought); });
});
</script>`,
  };
}

/** One visit, in a browser that has nothing in its cache. */
async function measured(browser, cookie, of) {
  const { path, row, scrolls, search, shown, html } = of();
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    viewport: { width: 1280, height: 800 },
  });
  await context.addCookies([cookie]);
  const page = await context.newPage();
  if (html) await page.route(site.base + path, route => route.fulfill({ contentType: 'text/html', body: html }));
  await page.addInitScript(watch, row);
  await page.goto(site.base + path);
  await page.waitForFunction(() => globalThis.seen.rows !== undefined, null, { timeout: 120_000 });
  const painted = await page.evaluate(
    () => performance.getEntriesByName('first-contentful-paint')[0]?.startTime,
  );
  const rows = await page.evaluate(() => globalThis.seen.rows);

  // The wheel, as fast as a hand turns it, for a while.
  await page.locator(scrolls).hover({ position: { x: 400, y: 300 } });
  await page.evaluate(() => globalThis.begin());
  const until = Date.now() + SCROLLS_MS;
  while (Date.now() < until) await page.mouse.wheel(0, 240);
  const scroll = await page.evaluate(() => globalThis.end());

  // Seven keys and their seven answers.
  await page.locator(search).click();
  await page.evaluate(() => globalThis.begin());
  const typedAt = Date.now();
  await page.keyboard.type(SOUGHT);
  await page.waitForFunction(
    ([shown, sought]) => {
      const rows = document.querySelectorAll(shown);
      return rows.length === 1 && rows[0].textContent.includes(sought);
    },
    [shown, SOUGHT],
    { timeout: 300_000 },
  );
  const found = Date.now() - typedAt;
  const typing = await page.evaluate(() => globalThis.end());

  const debug = await context.newCDPSession(page);
  await debug.send('Performance.enable');
  const { metrics } = await debug.send('Performance.getMetrics');
  const metric = name => metrics.find(one => one.name === name)?.value ?? 0;
  await context.close();
  return {
    'first contentful paint, ms': painted,
    'first rows on the screen, ms': rows,
    'frame while scrolling, 95 %, ms': at(scroll.frames, 0.95),
    'frame while scrolling, longest, ms': at(scroll.frames, 1),
    'seven keys typed and their answer shown, ms': found,
    'slowest key until the next frame, ms': Math.max(0, ...typing.events),
    'tasks over 50 ms while typing, ms in all': typing.longMs,
    'heap of scripts, MiB': metric('JSHeapUsedSize') / 2 ** 20,
    'nodes of the page': metric('Nodes'),
  };
}

/** Runs in the page, before anything of its own. */
function watch(row) {
  const seen = { rows: undefined, longMs: 0, events: [], frames: [], runs: false };
  globalThis.seen = seen;
  const look = () => {
    // On the screen: one frame later than in the page.
    if (document.querySelector(row)) requestAnimationFrame(() => (seen.rows = performance.now()));
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
  new PerformanceObserver(list => {
    for (const entry of list.getEntries()) if (seen.runs) seen.longMs += entry.duration;
  }).observe({ type: 'longtask' });
  new PerformanceObserver(list => {
    for (const entry of list.getEntries()) if (seen.runs) seen.events.push(entry.duration);
  }).observe({ type: 'event', durationThreshold: 16 });
  globalThis.begin = () => {
    Object.assign(seen, { longMs: 0, events: [], frames: [], runs: true });
    let last = performance.now();
    const tick = () => {
      const now = performance.now();
      seen.frames.push(now - last);
      last = now;
      if (seen.runs) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  };
  // What observers have still to tell comes before the second frame.
  globalThis.end = () =>
    new Promise(done =>
      requestAnimationFrame(() =>
        requestAnimationFrame(() => {
          seen.runs = false;
          done({ longMs: seen.longMs, events: seen.events, frames: seen.frames });
        }),
      ),
    );
}

function print(version, ours, naive) {
  const shown = n => (n >= 100 ? Math.round(n).toLocaleString('en') : n.toFixed(1));
  console.log(`${DEVICES.toLocaleString('en')} devices, Chromium ${version}, ${ROUNDS} rounds in turns, nothing cached; medians (lowest to highest).\n`);
  console.log('| figure | console | every row in one table | ratio |');
  console.log('| --- | --: | --: | --: |');
  for (const name of Object.keys(ours[0])) {
    const figures = [ours, naive].map(rounds => rounds.map(round => round[name]));
    const [mine, other] = figures.map(all => at(all, 0.5));
    const cell = all => `${shown(at(all, 0.5))} (${shown(Math.min(...all))} to ${shown(Math.max(...all))})`;
    console.log(
      `| ${name} | ${cell(figures[0])} | ${cell(figures[1])} | ${mine > 0 ? (other / mine).toFixed(1) : '–'} |`,
    );
  }
}

async function signedIn() {
  const made = await site.call(
    'POST',
    '/v1/users',
    { name: PERSON.user, password: PERSON.password, grants: [{ role: 'viewer' }] },
    { Authorization: `Bearer ${site.token}` },
  );
  const session = await site.call('POST', '/v1/session', PERSON, { Origin: site.base });
  const [, name, value] = /^([^=]+)=([^;]+)/.exec(session.cookie ?? '') ?? [];
  if (!name) throw new Error(`nobody is signed in: ${made.status}, ${session.status}`);
  return { name, value, url: site.base, httpOnly: true, secure: true, sameSite: 'Strict' };
}
