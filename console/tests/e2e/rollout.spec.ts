import { join } from 'node:path';
import { data, expect, PLIMSOLL, plimsoll, SITE, test } from './site.ts';

/** A rollout to two devices: two check-ins, an install and a proof each. */
const ROLLED_OUT_WITHIN_MS = 240_000;

test.describe.configure({ mode: 'serial' });

test('a release that the vendor publishes shows, is ordered here, and arrives', async ({
  console: page,
}, info) => {
  info.setTimeout(ROLLED_OUT_WITHIN_MS + 60_000);
  plimsoll(
    ...[
      'release',
      'publish',
      '--vendor',
      join(data(), 'vendor'),
      '--product',
      'pump-app',
      '--release',
      '1.1.0',
    ],
    ...[
      '--hardware',
      'plimsoll-linux-amd64',
      '--security-version',
      '1',
      join(PLIMSOLL, '../pump-app-1-1'),
    ],
  );
  await page.goto(`${SITE}/console/releases`);
  await page.getByRole('button', { name: 'Read the repository now' }).click();
  await page.getByRole('button', { name: 'Roll out pump-app 1.1.0' }).click();

  await page.getByLabel('Name').fill('pump-1.1');
  for (const wave of [3, 2])
    await page.getByRole('button', { name: `Take away wave ${wave}` }).click();
  await page.getByLabel('Percent, with those before').first().fill('50');
  const soaks = page.getByLabel('Soak, in minutes');
  for (const n of [0, 1]) await soaks.nth(n).fill('0.05');
  await page.getByRole('button', { name: 'A signal' }).click();
  await page.getByRole('button', { name: 'Order and begin' }).click();

  await expect(page.getByRole('heading', { name: 'pump-1.1', level: 1 })).toBeVisible();
  const now = page.getByRole('region', { name: 'Now' });
  await expect(now).toContainText('releaser');
  await expect(page.locator('.head').getByText('running')).toBeVisible();
  await expect(page.locator('.head').getByText('completed')).toBeVisible({
    timeout: ROLLED_OUT_WITHIN_MS,
  });
  await expect(
    page.getByRole('region', { name: 'Devices with leave' }).getByText('proven'),
  ).toHaveCount(2);
  await expect(
    page.getByRole('region', { name: 'Gates' }).getByText('within').first(),
  ).toBeVisible();
});

test('what was installed is marked on the time axis, where it happened', async ({
  console: page,
}) => {
  await page.goto(`${SITE}/console/devices/host-1?series=app/temp`);
  await page.getByRole('button', { name: '15 min', exact: true }).click();
  const mark = page.locator('.over-mark', { hasText: '1.1.0' }).first();
  await expect(mark).toBeVisible();
  const { at, share } = await mark.evaluate(line => ({
    at: Number((line as HTMLElement).dataset.at),
    share:
      (line as HTMLElement).offsetLeft / ((line.parentElement as HTMLElement).clientWidth || 1),
  }));
  const expected = 1 - (Date.now() - at) / (15 * 60_000);
  expect(Math.abs(share - expected)).toBeLessThan(0.01);
});

test('a rollout is taken back once somebody has read what that does', async ({
  console: page,
}, info) => {
  info.setTimeout(ROLLED_OUT_WITHIN_MS + 60_000);
  await page.goto(`${SITE}/console/rollouts/pump-1.1`);
  await page.getByRole('button', { name: 'Take back…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Take back pump-1.1?' });
  await expect(dialog).toContainText('2 devices that may have pump-app 1.1.0 are told to go back');
  await dialog.getByRole('button', { name: 'Take back' }).click();
  await expect(page.locator('.head').getByText('reverted')).toBeVisible({
    timeout: ROLLED_OUT_WITHIN_MS,
  });
  await page.goto(`${SITE}/console/devices/host-1`);
  await expect(page.getByRole('region', { name: 'Runs' })).toContainText('1.0.0');
});

test('the proof that one downloads is proven offline', async ({ console: page }, info) => {
  await page.goto(`${SITE}/console/evidence?subject=rollout/pump-1.1`);
  const events = page.getByRole('region', { name: 'Events of rollout/pump-1.1' });
  await expect(events.getByText('rollout.create')).toBeVisible();
  await expect(events.getByText('in the log').first()).toBeVisible();
  const coming = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download the proof' }).click();
  const file = info.outputPath('proof.json');
  await (await coming).saveAs(file);
  const said = plimsoll(
    'evidence',
    'verify',
    file,
    '--key',
    join(data(), 'site/evidence.pub'),
    '--print',
  );
  expect(said).toContain('rollout.create');
});
