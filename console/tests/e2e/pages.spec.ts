/** Every page: what axe finds, what moves by itself, and whether it fits a telephone. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Page } from '@playwright/test';
import { expect, SITE, test } from './site.ts';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core'), 'utf8');

const PAGES: [path: string, heading: string][] = [
  ['fleet', 'Fleet'],
  ['devices/host-1', 'host-1'],
  ['rollouts', 'Rollouts'],
  ['new-rollout', 'New rollout'],
  ['releases', 'Releases'],
  ['alerts', 'Alerts'],
  ['evidence', 'Evidence'],
  ['report', 'Weekly report'],
  ['users', 'Users'],
];

/** Below this a shift is not seen (web.dev: 0.1 is good). */
const SHIFT_MAX = 0.02;

async function settled(page: Page, heading: string) {
  await expect(page.getByRole('heading', { name: heading, level: 1 })).toBeVisible();
  await expect(page.locator('[aria-busy="true"]')).toHaveCount(0);
  await page.waitForLoadState('networkidle', { timeout: 3_000 }).catch(() => {
    // Charts that follow are never idle.
  });
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
  test(`${heading}: nothing that axe finds, in either theme, wide or narrow`, async ({
    console: page,
  }) => {
    await page.goto(`${SITE}/console/${path}`);
    await settled(page, heading);
    expect(await page.getByText('The console failed').count()).toBe(0);
    for (const [width, scheme] of [
      [1280, 'light'],
      [1280, 'dark'],
      [400, 'light'],
    ] as const) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: 800 });
      await page.waitForTimeout(100);
      expect(await faults(page), `${width} px, ${scheme}`).toEqual([]);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect(overflow, `${width} px: wider than the screen`).toBeLessThanOrEqual(0);
    }
  });

  test(`${heading}: nothing moves while it comes`, async ({ console: page }) => {
    await page.addInitScript(() => {
      const shifts: number[] = [];
      (globalThis as unknown as { shifts: number[] }).shifts = shifts;
      new PerformanceObserver(list => {
        for (const entry of list.getEntries()) {
          const shift = entry as PerformanceEntry & { value: number; hadRecentInput: boolean };
          if (!shift.hadRecentInput) shifts.push(shift.value);
        }
      }).observe({ type: 'layout-shift', buffered: true });
    });
    await page.goto(`${SITE}/console/${path}`);
    await settled(page, heading);
    await page.waitForTimeout(1_500);
    const shifts = await page.evaluate(
      () => (globalThis as unknown as { shifts: number[] }).shifts,
    );
    expect(shifts.reduce((sum, one) => sum + one, 0)).toBeLessThan(SHIFT_MAX);
  });
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

test('the report fits A4 without what one presses', async ({ console: page }) => {
  await page.goto(`${SITE}/console/report`);
  await settled(page, 'Weekly report');
  await page.emulateMedia({ media: 'print' });
  await expect(page.getByRole('navigation')).toBeHidden();
  await expect(page.getByRole('button', { name: 'Print' })).toBeHidden();
  await expect(page.getByRole('heading', { name: 'Weekly report' })).toBeVisible();
  expect((await page.pdf({ format: 'A4' })).length).toBeGreaterThan(5_000);
});
