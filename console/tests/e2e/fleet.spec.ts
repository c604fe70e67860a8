import { call, expect, fromDist, SITE, test } from './site.ts';

/** Other tests list serial numbers that nobody enrols. */
const ENROLLED = `${SITE}/console/fleet?standing=enrolled`;

test('the fleet is who is enrolled, with what each runs', async ({ console: page }) => {
  await page.goto(ENROLLED);
  const grid = page.getByRole('grid', { name: 'Devices' });
  await expect(grid.getByRole('row')).toHaveCount(4);
  for (const id of ['gw-1', 'host-1', 'replay-1']) {
    const row = grid.getByRole('row').filter({ has: page.getByRole('link', { name: id }) });
    await expect(row).toContainText('enrolled');
  }
  await expect(grid.getByRole('row').filter({ hasText: 'host-1' })).toContainText('pump-app');
  await expect(page.getByText('3 devices of this kind')).toBeVisible();
});

test('search and filter are control’s, and stand in the address', async ({ console: page }) => {
  await page.goto(ENROLLED);
  const grid = page.getByRole('grid', { name: 'Devices' });
  await expect(grid.getByRole('row')).toHaveCount(4);
  await page.keyboard.press('/');
  await page.keyboard.type('REPLAY');
  await expect(grid.getByRole('row')).toHaveCount(2);
  await expect(page).toHaveURL(/search=REPLAY/);
  await page.getByLabel('Search devices by id or serial number').fill('');
  await page
    .getByRole('group', { name: 'Role' })
    .getByRole('button', { name: /gateway/ })
    .click();
  await expect(grid.getByRole('row')).toHaveCount(2);
  await expect(grid).toContainText('gw-1');
  await page.reload();
  await expect(grid.getByRole('row')).toHaveCount(2);
  await page.getByRole('button', { name: 'Clear the filter' }).click();
  await expect(page).toHaveURL(`${SITE}/console/fleet`);
  const { total } = (await call('GET', '/v1/inventory?limit=1')).body as { total: number };
  await expect(page.getByText(`${total.toLocaleString('en')} devices`)).toBeVisible();
});

test('nothing found is said, and what to do', async ({ console: page }) => {
  await page.getByLabel('Search devices by id or serial number').fill('no such device');
  await expect(page.getByText('No device is like this')).toBeVisible();
});

test('what is done elsewhere shows as it happens, in every tab, and nobody asks for it', async ({
  console: page,
  context,
}) => {
  const second = await context.newPage();
  await fromDist(second);
  await second.goto(SITE);
  const streams: string[] = [];
  second.on('request', request => {
    if (request.url().endsWith('/v1/stream')) streams.push(request.url());
  });
  for (const tab of [page, second]) {
    await expect(tab.getByText('Live', { exact: true })).toBeVisible();
    await expect(tab.getByRole('grid', { name: 'Devices' })).toContainText('host-1');
  }
  // With the stream, a page asks by itself only every 30 s.
  const serial = `listed-${Date.now()}`;
  expect(
    (await call('POST', '/v1/ownership', { serial, role: 'device', zone: 'hall' })).status,
  ).toBe(200);
  for (const tab of [page, second]) {
    const row = tab.getByRole('grid', { name: 'Devices' }).getByRole('row');
    await expect(row.filter({ hasText: serial })).toContainText('listed', { timeout: 15_000 });
  }
  // The tab that has the stream closes: the other one takes it.
  expect(streams).toEqual([]);
  await page.close();
  await expect.poll(() => streams.length).toBe(1);
  expect((await call('POST', `/v1/devices/${serial}/group`, { group: 'pilot' })).status).toBe(200);
  const row = second.getByRole('row').filter({ hasText: serial });
  await expect(row).toContainText('pilot', { timeout: 15_000 });
});

test('from the keyboard alone: to a device and back', async ({ console: page }) => {
  await expect(page.getByRole('grid')).toContainText('host-1');
  await page.keyboard.press('Tab');
  await expect(page.getByRole('button', { name: 'Skip to the page' })).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(page.getByRole('main')).toBeFocused();
  const first = page.getByRole('grid').locator('[data-at="0"]');
  for (
    let n = 0;
    n < 60 && !(await first.evaluate(row => row === document.activeElement));
    n += 1
  ) {
    await page.keyboard.press('Tab');
  }
  await expect(first).toBeFocused();
  await page.keyboard.press('ArrowDown');
  await expect(page.getByRole('grid').locator('[data-at="1"]')).toBeFocused();
  const id = (await page.getByRole('grid').locator('[data-at="1"] a').textContent()) ?? '';
  await page.keyboard.press('Enter');
  await expect(page.getByRole('heading', { name: id, level: 1 })).toBeFocused();
  await page.keyboard.press('g');
  await page.keyboard.press('r');
  await expect(page.getByRole('heading', { name: 'Rollouts', level: 1 })).toBeFocused();
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog', { name: 'Keys' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await page.goBack();
  await expect(page).toHaveURL(`${SITE}/console/devices/${id}`);
});
