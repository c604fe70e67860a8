/** Every page: what axe finds, what moves by itself, and whether it fits a telephone. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Page } from '@playwright/test';
import { drawn, expect, SITE, test } from './site.ts';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core'), 'utf8');

const PAGES: [path: string, heading: string][] = [
  ['fleet', 'Fleet'],
  ['devices/host-1', 'host-1'],
  ['rollouts', 'Rollouts'],
  ['new-rollout', 'New rollout'],
  ['releases', 'Releases'],
  ['alerts', 'Alerts'],
  ['alerts/silences', 'Alerts'],
  ['alerts/rules', 'Alerts'],
  ['alerts/targets', 'Alerts'],
  ['approvals', 'Approvals'],
  ['evidence', 'Evidence'],
  ['report', 'Weekly report'],
  ['users', 'Users'],
];

interface LayoutShift extends PerformanceEntry {
  value: number;
  hadRecentInput: boolean;
  sources: { node: Node | null }[];
}

interface Shift {
  value: number;
  of: string[];
}

/** Below this a shift is not seen (web.dev: 0.1 is good). */
const SHIFT_MAX = 0.02;

async function settled(page: Page, heading: string) {
  await expect(page.getByRole('heading', { name: heading, level: 1 })).toBeVisible();
  await expect(page.locator('[aria-busy="true"], .awaited')).toHaveCount(0);
  await drawn(page);
}

async function faults(page: Page): Promise<string[]> {
  // Through the debugger: the page's own policy would not let it in.
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const axe = (globalThis as unknown as { axe: { run: () => Promise<{ violations: Found[] }> } })
      .axe;
    interface Found {
      id: string;
      nodes: { target: string[] }[];
    }
    const { violations } = await axe.run();
    return violations.map(
      one => `${one.id}: ${one.nodes.map(node => node.target.join(' ')).join(', ')}`,
    );
  });
}

for (const [path, heading] of PAGES) {
  test(`${path}: nothing moves while it comes, it fits, and axe finds nothing`, async ({
    console: page,
  }) => {
    await page.addInitScript(watchShifts);
    await page.goto(`${SITE}/console/${path}`);
    await settled(page, heading);
    expect(await page.getByText('The console failed').count()).toBe(0);
    const shifts = await page.evaluate(() => (globalThis as unknown as { shifts: Shift[] }).shifts);
    const sum = shifts.reduce((sum, one) => sum + one.value, 0);
    expect(sum, JSON.stringify(shifts, null, 1)).toBeLessThan(SHIFT_MAX);
    for (const [width, scheme] of [
      [1280, 'light'],
      [1280, 'dark'],
      [400, 'light'],
    ] as const) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: 800 });
      await drawn(page);
      expect(await faults(page), `${width} px, ${scheme}`).toEqual([]);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect(overflow, `${width} px: wider than the screen`).toBeLessThanOrEqual(0);
    }
  });
}

/** Runs in the page, before anything of its own: what moved without anybody having pressed something. */
function watchShifts() {
  const shifts: Shift[] = [];
  (globalThis as unknown as { shifts: Shift[] }).shifts = shifts;
  new PerformanceObserver(list => {
    for (const entry of list.getEntries() as LayoutShift[]) {
      if (entry.hadRecentInput) continue;
      const of = entry.sources.map(({ node }) => {
        const element = node instanceof Element ? node : node?.parentElement;
        return `${element?.tagName} ${element?.className}: ${element?.textContent?.slice(0, 40)}`;
      });
      shifts.push({ value: entry.value, of });
    }
  }).observe({ type: 'layout-shift', buffered: true });
}

test('no page loads anything from elsewhere', async ({ console: page }) => {
  const elsewhere: string[] = [];
  page.on('request', request => {
    if (!request.url().startsWith(SITE) && !request.url().startsWith('blob:'))
      elsewhere.push(request.url());
  });
  for (const [path, heading] of PAGES) {
    await page.goto(`${SITE}/console/${path}`);
    await settled(page, heading);
  }
  expect(elsewhere).toEqual([]);
});

test('the chosen theme stays, and is there before the first picture', async ({ console: page }) => {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: 'light' });
  const light = await ground();
  await page.getByRole('button', { name: /^Colours/ }).click();
  await page.getByRole('button', { name: /^Colours: light/ }).click();
  const dark = await ground();
  expect(dark).not.toBe(light);
  await page.reload();
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  expect(await ground()).toBe(dark);
});

test('charts are drawn in colours of the theme', async ({ console: page }) => {
  const drawnIn = (name: string) =>
    page.evaluate(name => getComputedStyle(document.body).getPropertyValue(name), name);
  for (const name of ['--chart-first', '--chart-second', '--chart-band', '--ink-soft', '--line']) {
    await page.emulateMedia({ colorScheme: 'light' });
    const light = await drawnIn(name);
    await page.emulateMedia({ colorScheme: 'dark' });
    const dark = await drawnIn(name);
    for (const colour of [light, dark]) expect(colour, name).toMatch(/^rgba?\(/);
    expect(light, name).not.toBe(dark);
  }
});

test('the report fits A4 without what one presses', async ({ console: page }) => {
  await page.goto(`${SITE}/console/report`);
  await settled(page, 'Weekly report');
  await page.emulateMedia({ media: 'print' });
  await expect(page.getByRole('navigation')).toBeHidden();
  await expect(page.getByRole('button', { name: 'Print' })).toBeHidden();
  await expect(page.getByRole('heading', { name: 'Weekly report' })).toBeVisible();
  expect((await page.pdf({ format: 'A4' })).length).toBeGreaterThan(5_000);
});
