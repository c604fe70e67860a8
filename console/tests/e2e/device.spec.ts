import { readFileSync } from 'node:fs';
import type { Page } from '@playwright/test';
import { call, expect, queried, SITE, test } from './site.ts';

test.use({ mayRefuse: ['/v1/devices/nobody'] });

/** Rows of the table below the charts, newest first. */
async function shown(page: Page, series: string): Promise<{ at: number; value: number }[]> {
  return page
    .getByRole('table', { name: new RegExp(`^${series},`) })
    .locator('tbody tr')
    .evaluateAll(rows =>
      rows.map(row => ({
        at: Number((row as HTMLElement).dataset.at),
        value: Number((row as HTMLElement).dataset.value),
      })),
    );
}

/** Times that a chart reaches, by its name. */
async function stretch(page: Page): Promise<string> {
  return (
    (await page.getByRole('group', { name: /^Chart of app\/temp/ }).getAttribute('aria-label')) ??
    ''
  );
}

test('a chart shows what the store has, value for value', async ({ console: page }) => {
  await page.goto(`${SITE}/console/devices/host-1?series=app/temp,cpu/busy`);
  await page.getByText('The same as a table').click();
  for (const series of ['app/temp', 'cpu/busy']) {
    await expect.poll(async () => (await shown(page, series)).length).toBeGreaterThan(3);
    const seen = (await shown(page, series)).slice(0, 20);
    const stored = queried(
      `select cast(time as bigint) as at, value from readings where device = 'host-1' and series = '${series}' ` +
        `order by time desc limit 500`,
    );
    const values = new Map(
      stored.map(row => [Math.round(Number(row.at) / 1e3), Number(row.value)]),
    );
    for (const { at, value } of seen)
      expect(value, `${series} at ${at}`).toBe(values.get(Math.round(at)));
  }
});

test('what a device says now shows within seconds', async ({ console: page }) => {
  await page.goto(`${SITE}/console/devices/host-1?series=app/temp`);
  await page.getByText('The same as a table').click();
  await expect.poll(async () => (await shown(page, 'app/temp')).length).toBeGreaterThan(3);
  const before = (await shown(page, 'app/temp'))[0]?.at ?? 0;
  await expect
    .poll(async () => (await shown(page, 'app/temp'))[0]?.at ?? 0)
    .toBeGreaterThan(before);
  const newest = (await shown(page, 'app/temp'))[0]?.at ?? 0;
  expect(Date.now() - newest).toBeLessThan(10_000);
  const row = page.locator('[data-series="app/temp"]');
  await expect(row).toContainText('°C');
});

test('a series that is ticked gets its chart, and the address says so', async ({
  console: page,
}) => {
  await page.goto(`${SITE}/console/devices/host-1?series=app/temp`);
  await page.getByLabel('Find a series').fill('load');
  await page.getByRole('checkbox', { name: 'load/15' }).check();
  await expect(page.getByRole('group', { name: /^Chart of load\/15/ })).toBeVisible();
  await expect(page).toHaveURL(/load(%2F|\/)15/);
});

test('charts move by keys, by wheel and by hand, and follow again', async ({ console: page }) => {
  await page.goto(`${SITE}/console/devices/host-1?series=app/temp,cpu/busy`);
  const chart = page.getByRole('group', { name: /^Chart of app\/temp/ });
  const follow = page.getByRole('button', { name: 'Follow' });
  await expect(follow).toHaveAttribute('aria-pressed', 'true');
  await chart.focus();
  await page.keyboard.press('ArrowLeft');
  await expect(follow).toHaveAttribute('aria-pressed', 'false');
  const back = await stretch(page);
  await page.keyboard.press('ArrowLeft');
  expect(await stretch(page)).not.toBe(back);
  await page.keyboard.press('End');
  await expect(follow).toHaveAttribute('aria-pressed', 'true');
  await page.keyboard.press('+');
  await expect(page.getByText('(3 min)')).toBeVisible();

  const box = await chart.locator('.u-over').boundingBox();
  if (!box) throw new Error('the chart has no place');
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, box.y + box.height / 2, { steps: 5 });
  await page.mouse.up();
  await expect(follow).toHaveAttribute('aria-pressed', 'false');
  const dragged = await stretch(page);
  await page.keyboard.down('Control');
  await page.mouse.wheel(0, 100);
  await page.keyboard.up('Control');
  await expect.poll(() => stretch(page)).not.toBe(dragged);
  await follow.click();
  await expect(follow).toHaveAttribute('aria-pressed', 'true');
});

test('identity and software are what control says', async ({ console: page }) => {
  await page.goto(`${SITE}/console/devices/host-1`);
  const identity = page.getByRole('region', { name: 'Identity' });
  await expect(identity).toContainText('Serial number');
  await expect(identity.getByRole('row')).not.toHaveCount(0);
  await expect(page.getByRole('region', { name: 'Runs' })).toContainText('1.0.0');
  await expect(page.getByRole('region', { name: 'Runs' })).toContainText('confirmed');
  await expect(
    page.getByRole('region', { name: 'History' }).getByRole('listitem').first(),
  ).toBeVisible();
});

test('all that is known of a device is one file', async ({ console: page }, info) => {
  await page.goto(`${SITE}/console/devices/host-1`);
  const coming = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download the file' }).click();
  const file = info.outputPath('host-1.json');
  await (await coming).saveAs(file);
  const known = JSON.parse(readFileSync(file, 'utf8'));
  expect(JSON.stringify(known)).toContain('host-1');
  await expect(page.getByText('Saved as host-1-forensics.json')).toBeVisible();
});

test('a device that is done with is decommissioned once its name was typed', async ({
  console: page,
}) => {
  const serial = `old-${Date.now()}`;
  const listed = { serial, role: 'device', zone: 'hall' };
  expect((await call('POST', '/v1/ownership', listed)).status).toBe(200);
  await page.goto(`${SITE}/console/devices/${serial}`);
  await page.getByRole('button', { name: 'Decommission…' }).click();
  const dialog = page.getByRole('dialog', { name: `Decommission ${serial} for good?` });
  const confirm = dialog.getByRole('button', { name: 'Decommission for good' });
  await expect(confirm).toBeDisabled();
  await dialog.getByLabel(`Type ${serial} to confirm`).fill(serial);
  await confirm.click();
  await expect(page.locator('.head').getByText('decommissioned')).toBeVisible();
  await expect(page.getByRole('button', { name: 'Decommission…' })).toHaveCount(0);
});

test('an address of no device says so, once', async ({ console: page }) => {
  await page.goto(`${SITE}/console/devices/nobody`);
  await expect(page.getByText('No such device')).toHaveCount(1);
});

test('a device is quarantined after it is said what that does, and released', async ({
  console: page,
}) => {
  await page.goto(`${SITE}/console/devices/replay-1`);
  await page.getByRole('button', { name: 'Quarantine…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Quarantine replay-1?' });
  await expect(dialog).toContainText('Its gateways cut it off within seconds.');
  await page.keyboard.press('Escape');
  await expect(page.getByRole('button', { name: 'Quarantine…' })).toBeFocused();
  await page.getByRole('button', { name: 'Quarantine…' }).click();
  await dialog.getByRole('button', { name: 'Quarantine' }).click();
  await expect(page.getByRole('button', { name: 'Release…' })).toBeVisible();
  await page.getByRole('button', { name: 'Release…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Release' }).click();
  await expect(page.getByRole('button', { name: 'Quarantine…' })).toBeVisible();
});
