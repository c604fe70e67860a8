import { call, expect, SITE, test } from './site.ts';

/** FLEET=100000 for the figure that the console promises; it takes the site some minutes to put so many on its list. */
const DEVICES = Number(process.env.FLEET ?? 2_000);
const AT_ONCE = 64;
/** Of a screen of 800 px: what is in sight, and a little more on either side. */
const ROWS_MAX = 80;

const serial = (n: number) => `many-${String(n).padStart(6, '0')}`;

test('a long fleet scrolls to its end, and only what is in sight exists', async ({
  console: page,
}, info) => {
  info.setTimeout(60_000 + DEVICES * 20);
  for (let first = 0; first < DEVICES; first += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, DEVICES - first) }, (_, i) =>
      call('POST', '/v1/ownership', { serial: serial(first + i), role: 'device', zone: 'yard' }),
    );
    for (const answer of await Promise.all(some)) expect(answer.status).toBe(200);
  }
  const began = Date.now();
  await page.goto(`${SITE}/console/fleet?zone=yard`);
  const grid = page.getByRole('grid', { name: 'Devices' });
  await expect(grid.getByRole('link', { name: serial(0) })).toBeVisible();
  const shownAfter = Date.now() - began;
  await expect(grid).toHaveAttribute('aria-rowcount', String(DEVICES + 1));

  const frames = await grid.evaluate(async box => {
    const gaps: number[] = [];
    let last = performance.now();
    const until = last + 2_000;
    while (last < until) {
      box.scrollTop += 60;
      const now = await new Promise<number>(painted => requestAnimationFrame(painted));
      gaps.push(now - last);
      last = now;
    }
    return gaps.sort((a, b) => a - b);
  });
  expect(await grid.getByRole('row').count()).toBeLessThan(ROWS_MAX);

  await grid.locator('[tabindex="0"]').first().focus();
  const jumped = Date.now();
  await page.keyboard.press('End');
  const last = grid.getByRole('link', { name: serial(DEVICES - 1) });
  await expect(last).toBeVisible({ timeout: 30_000 });
  const endAfter = Date.now() - jumped;
  expect(await grid.getByRole('row').count()).toBeLessThan(ROWS_MAX);

  const sought = Date.now();
  await page
    .getByLabel('Search devices by id or serial number')
    .fill(serial(DEVICES - 2).toUpperCase());
  await expect(grid.getByRole('row')).toHaveCount(2);
  const foundAfter = Date.now() - sought;
  const at = (share: number) => (frames[Math.floor(frames.length * share)] ?? 0).toFixed(0);
  console.log(
    `${DEVICES} devices: shown after ${shownAfter} ms, end after ${endAfter} ms, found after ${foundAfter} ms; ` +
      `a frame took ${at(0.5)} ms (median), ${at(0.95)} ms (95 %), ${at(0.999)} ms (longest)`,
  );
});
