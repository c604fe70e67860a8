/**
 * Pictures of every page in every state, to be looked at: `node dev/look.mjs [part of a name]…`, while `dev/site.mjs`
 * runs. They land in `target/look`. What axe finds, and what the browser complains of, is printed.
 */

import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from '@playwright/test';

const SITE = process.env.SITE ?? 'http://127.0.0.1:18990';
const OUT = new URL('../target/look/', import.meta.url).pathname;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core'), 'utf8');

const PAGES = {
  fleet: '/console/fleet',
  'fleet-search': '/console/fleet?search=pump-00&standing=quarantined',
  'fleet-none': '/console/fleet?search=nothing',
  device: '/console/devices/drive-000001',
  rollouts: '/console/rollouts',
  rollout: '/console/rollouts/pump-app-1.1.0-1',
  'rollout-back': '/console/rollouts/pump-app-1.3.0',
  'new-rollout': '/console/new-rollout?product=pump-app&version=1.3.0',
  releases: '/console/releases',
  alerts: '/console/alerts',
  silences: '/console/alerts/silences',
  rules: '/console/alerts/rules',
  targets: '/console/alerts/targets',
  approvals: '/console/approvals',
  approval: '/console/approvals/5',
  evidence: '/console/evidence',
  report: '/console/report',
  users: '/console/users',
};
const MAIN = [
  'fleet',
  'device',
  'rollouts',
  'rollout',
  'releases',
  'alerts',
  'approvals',
  'evidence',
  'report',
  'users',
];
const STATES = {
  full: Object.keys(PAGES),
  empty: MAIN,
  failing: MAIN,
  slow: MAIN,
  viewer: ['device', 'rollout', 'users'],
};
const SIZES = { 1280: { width: 1280, height: 800 }, 400: { width: 400, height: 800 } };

const wanted = process.argv.slice(2);
mkdirSync(OUT, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
});

async function shoot(name, path, size, scheme, act) {
  const full = `${name}-${size}-${scheme}`;
  if (wanted.length > 0 && !wanted.some(part => full.includes(part))) return;
  const context = await browser.newContext({
    viewport: SIZES[size],
    colorScheme: scheme,
    bypassCSP: false,
  });
  const page = await context.newPage();
  page.on('console', message => {
    const isAsked = message.text().includes('Failed to load resource');
    if (['error', 'warning'].includes(message.type()) && !isAsked)
      console.log(`${full}: ${message.text()}`);
  });
  page.on('pageerror', error => console.log(`${full}: ${error}`));
  await page.goto(SITE + path);
  await page.waitForTimeout(name.includes('slow') ? 600 : 1_600);
  await act?.(page);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  if (width > SIZES[size].width) console.log(`${full}: ${width} px wide`);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  for (const one of violations) {
    console.log(
      `${full}: axe ${one.id}: ${one.nodes.map(node => node.target.join(' ')).slice(0, 3)}`,
    );
  }
  await page.screenshot({ path: `${OUT}${full}.png` });
  // What lies below the fold: the page grows to its content, as no screen does.
  if (size === '1280' || size === '400') {
    const height = await page.evaluate(() => document.querySelector('main')?.scrollHeight ?? 0);
    if (height > 760 && !name.startsWith('fleet')) {
      await page.setViewportSize({
        width: SIZES[size].width,
        height: Math.min(height + 60, 4_000),
      });
      await page.waitForTimeout(300);
      await page.screenshot({ path: `${OUT}${full}-whole.png` });
    }
  }
  await context.close();
}

for (const [state, names] of Object.entries(STATES)) {
  await fetch(`${SITE}/state/${state}`);
  for (const name of names) {
    for (const size of Object.keys(SIZES)) {
      const schemes = state === 'full' ? ['light', 'dark'] : ['light'];
      for (const scheme of schemes) await shoot(`${state}-${name}`, PAGES[name], size, scheme);
    }
  }
}
await fetch(`${SITE}/state/signed-out`);
for (const size of Object.keys(SIZES)) await shoot('sign-in', '/', size, 'light', signInWrongly);
await fetch(`${SITE}/state/full`);
const click = name => page => page.getByRole('button', { name }).first().click();
for (const size of Object.keys(SIZES)) {
  await shoot('dialog-halt', PAGES.rollout, size, 'light', click('Halt…'));
  await shoot('dialog-revoke', PAGES.device, size, 'dark', click('Revoke…'));
  await shoot('dialog-user', PAGES.users, size, 'light', click('New user…'));
  await shoot('dialog-asked', PAGES.users, size, 'light', asksForUser);
  await shoot('dialog-approve', PAGES.approvals, size, 'dark', click('Approve…'));
  await shoot('dialog-refuse', PAGES.approvals, size, 'light', click('Refuse…'));
  await shoot('dialog-two-people', PAGES.users, size, 'light', page =>
    page.getByRole('region', { name: 'Takes two people' }).getByRole('button').click(),
  );
  await shoot('dialog-token', PAGES.users, size, 'light', click('New token…'));
  await shoot('dialog-rule', PAGES.rules, size, 'light', click('New rule…'));
  await shoot('dialog-target', PAGES.targets, size, 'dark', click('New target…'));
  await shoot('dialog-silence', PAGES.alerts, size, 'light', click('Silence…'));
  await shoot('keys', PAGES.fleet, size, 'light', page => page.keyboard.press('?'));
}
await shoot('menu', PAGES.fleet, '400', 'light', click('Pages'));
await browser.close();

async function asksForUser(page) {
  await page.getByRole('button', { name: 'New user…' }).click();
  await page.getByLabel('Name').fill('dora');
  await page.getByLabel('Password').fill('a plain long password');
  await page.getByRole('button', { name: 'Make the user' }).click();
  await page.waitForTimeout(300);
}

async function signInWrongly(page) {
  await page.getByLabel('User').fill('anna');
  await page.getByLabel('Password').fill('not this one');
  await page.keyboard.press('Enter');
  await page.waitForTimeout(300);
}
