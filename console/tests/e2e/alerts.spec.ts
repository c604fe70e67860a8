import { createHmac } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Page } from '@playwright/test';
import { call, expect, SITE, signIn, test, VIEWER } from './site.ts';

const RULE = 'always-so';
const SECRET = 'a secret of the night shift';

const rowOf = (page: Page, text: string) => page.getByRole('row').filter({ hasText: text });

test.describe.configure({ mode: 'serial' });
test.use({ mayRefuse: ['/v1/alert-rules', '/v1/silences', '/v1/alert-targets/night/test'] });

test('a rule that is written here raises an alert, which somebody sees to', async ({
  console: page,
}) => {
  await page.goto(`${SITE}/console/alerts/rules`);
  await page.getByRole('button', { name: 'New rule…' }).click();
  const dialog = page.getByRole('dialog', { name: 'New rule' });
  await dialog.getByLabel('Name').fill(RULE);
  await dialog.getByLabel('What is the matter').fill('{subject} is at {value}');
  await dialog.getByLabel('Question, in SQL').fill('select 1 as nothing_that_is_asked_for');
  await dialog.getByLabel('For, in minutes').fill('0');
  await dialog.getByLabel('Looked at every').fill('1');
  await dialog.getByRole('button', { name: 'Make the rule' }).click();
  await expect(dialog.getByRole('alert')).toContainText('subject');
  await dialog
    .getByLabel('Question, in SQL')
    .fill("select 'pump hall' as subject, 42.0 as value");
  await dialog.getByRole('button', { name: 'Make the rule' }).click();
  await expect(dialog).toHaveCount(0);
  await expect(rowOf(page, RULE)).toContainText('of this site');

  await page.getByRole('link', { name: 'Now' }).click();
  const alert = rowOf(page, 'pump hall is at 42');
  await expect(alert).toContainText('firing');
  await alert.getByRole('button', { name: 'Acknowledge…' }).click();
  await page.getByLabel('Note').fill('on my way');
  await page.getByRole('dialog').getByRole('button', { name: 'Acknowledge' }).click();
  await expect(alert).toContainText('acknowledged');
  await expect(alert).toContainText('on my way');
});

test('a silence has an end and a reason, and is ended before its time', async ({
  console: page,
}) => {
  await page.goto(`${SITE}/console/alerts/silences`);
  await page.getByRole('button', { name: 'New silence…' }).click();
  const dialog = page.getByRole('dialog', { name: 'New silence' });
  await dialog.getByLabel('Rule').selectOption(RULE);
  await dialog.getByLabel('For').selectOption('until a time');
  const tomorrow = new Date(Date.now() + 86_400_000);
  const until = new Date(tomorrow.getTime() - tomorrow.getTimezoneOffset() * 60_000);
  await dialog.getByLabel('Until').fill(until.toISOString().slice(0, 16));
  await dialog.getByLabel('Why').fill('the hall is painted');
  await dialog.getByRole('button', { name: 'Silence' }).click();
  const row = rowOf(page, 'the hall is painted');
  await expect(row).toContainText(RULE);
  await expect(row).toContainText(/in 23 h|in 1 d/);
  await page.goto(`${SITE}/console/alerts`);
  await expect(rowOf(page, 'pump hall is at 42')).toContainText('silent until');
  await page.goto(`${SITE}/console/alerts/silences`);
  await row.getByRole('button', { name: 'End…' }).click();
  await page.getByRole('button', { name: 'End the silence' }).click();
  await expect(row).toContainText('over');
});

test('an order whose answer is lost is sent again, and done once', async ({ console: page }) => {
  const reason = `lost ${Date.now()}`;
  let sent = 0;
  await page.route('**/v1/silences', async route => {
    if (route.request().method() !== 'POST') return route.fallback();
    sent += 1;
    if (sent > 1) return route.fallback();
    // It arrives, and its answer does not.
    await route.fetch();
    await route.abort('connectionreset');
  });
  await page.goto(`${SITE}/console/alerts/silences`);
  await page.getByRole('button', { name: 'New silence…' }).click();
  const dialog = page.getByRole('dialog', { name: 'New silence' });
  await dialog.getByLabel('Subject').fill('pump-7');
  await dialog.getByLabel('Why').fill(reason);
  await dialog.getByRole('button', { name: 'Silence' }).click();
  await expect(dialog).toHaveCount(0);
  expect(sent).toBe(2);
  await expect(rowOf(page, reason)).toHaveCount(1);
});

test('a rule that is switched off raises nothing more, and one that is deleted is gone', async ({
  console: page,
}) => {
  await page.goto(`${SITE}/console/alerts/rules`);
  await page.getByRole('button', { name: `Switch off… ${RULE}` }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Switch off' }).click();
  await expect(rowOf(page, RULE).getByText('off', { exact: true })).toBeVisible();
  await page.getByRole('button', { name: `Delete… ${RULE}` }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await expect(rowOf(page, RULE)).toHaveCount(0);
  await page.goto(`${SITE}/console/alerts?state=resolved`);
  await expect(rowOf(page, 'pump hall is at 42').first()).toContainText('resolved');
});

test('a shipped rule that is changed can be had as it was shipped', async ({ console: page }) => {
  const id = 'counters-have-gaps';
  await page.goto(`${SITE}/console/alerts/rules`);
  const row = rowOf(page, id);
  await expect(row).toContainText('shipped');
  await page.getByRole('button', { name: `Change… ${id}` }).click();
  await page.getByLabel('Limit').fill('7');
  await page.getByRole('button', { name: 'Change the rule' }).click();
  await expect(row).toContainText('changed here');
  await expect(row).toContainText('above 7');
  await page.getByRole('button', { name: `As shipped… ${id}` }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'As shipped' }).click();
  await expect(row).not.toContainText('changed here');
  await expect(row).toContainText('above 0');
});

test('a webhook is told and signed for, and nobody sees its secret again', async ({
  console: page,
}) => {
  const told: { body: string; signature: unknown }[] = [];
  const pager = createServer(async (request, answer) => {
    told.push({ body: await textOf(request), signature: request.headers['plimsoll-signature'] });
    answer.end();
  });
  await new Promise<void>(listens => pager.listen(0, '127.0.0.1', listens));
  const url = `http://127.0.0.1:${(pager.address() as AddressInfo).port}/told`;

  await page.goto(`${SITE}/console/alerts/targets`);
  await expect(page.getByText('Nobody is told')).toBeVisible();
  await page.getByRole('button', { name: 'New target…' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Name').fill('night');
  await dialog.getByLabel('Address').fill(url);
  await dialog.getByLabel('Secret').fill(SECRET);
  await dialog.getByRole('button', { name: 'Make the target' }).click();
  await expect(rowOf(page, 'night')).toContainText(url);

  await page.getByRole('button', { name: 'Test… night' }).click();
  await page.getByRole('button', { name: 'Send it' }).click();
  await expect(page.getByRole('dialog', { name: 'night was told' })).toBeVisible();
  await page.getByRole('button', { name: 'Close' }).click();
  const [telling] = told;
  expect(JSON.parse(telling?.body ?? '{}')).toMatchObject({ kind: 'test' });
  const hmac = createHmac('sha256', SECRET)
    .update(telling?.body ?? '')
    .digest('hex');
  expect(telling?.signature).toBe(`sha256=${hmac}`);

  await page.getByRole('button', { name: 'Change… night' }).click();
  await expect(dialog.getByLabel('Secret')).toHaveValue('');
  await dialog.getByLabel('Hears of').selectOption('critical');
  await dialog.getByRole('button', { name: 'Change the target' }).click();
  await expect(rowOf(page, 'night')).toContainText('critical alerts');
  expect(JSON.stringify((await call('GET', '/v1/alert-targets')).body)).not.toContain(SECRET);

  // Whom nobody answers is said, in control's words.
  await new Promise(closed => pager.close(closed));
  await page.getByRole('button', { name: 'Test… night' }).click();
  await page.getByRole('button', { name: 'Send it' }).click();
  await expect(dialog.getByRole('alert')).toContainText('Connection refused');
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Delete… night' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await expect(page.getByText('Nobody is told')).toBeVisible();
});

test('a viewer sees rules, and who may change them; targets are not his to see', async ({
  page,
}) => {
  await signIn(page, VIEWER, '/console/alerts/rules');
  await expect(rowOf(page, 'counters-have-gaps')).toBeVisible();
  const change = page.getByRole('button', { name: 'Change… counters-have-gaps' });
  await expect(change).toHaveAttribute('aria-disabled', 'true');
  await expect(change).toHaveAccessibleDescription('This takes an administrator.');
  await page.getByRole('link', { name: 'Who is told' }).click();
  await expect(page.getByText('Targets are not yours to see')).toBeVisible();
});

async function textOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString('utf8');
}
