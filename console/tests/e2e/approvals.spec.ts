/** Two people, each in a browser of his own. */

import type { Browser, Page } from '@playwright/test';
import {
  ADMIN,
  call,
  callAs,
  expect,
  fromDist,
  type Person,
  type SessionCookie,
  SITE,
  sessionOf,
  test,
} from './site.ts';

const OPERATOR: Person = { user: 'otto', password: 'the third long password' };
const OFFICER: Person = { user: 'sofia', password: 'the fourth long password' };
/** Less than the page waits before it asks by itself: what shows within this came by the stream. */
const BY_STREAM = { timeout: 15_000 };

let anna: SessionCookie;
let otto: SessionCookie;
let sofia: SessionCookie;

test.beforeAll(async () => {
  for (const [person, role] of [
    [OPERATOR, 'operator'],
    [OFFICER, 'security_officer'],
  ] as const) {
    const made = await call('POST', '/v1/users', {
      name: person.user,
      password: person.password,
      grants: [{ role }],
    });
    // After a test that failed, they are there already.
    expect([200, 201, 409], JSON.stringify(made.body)).toContain(made.status);
  }
  [anna, otto, sofia] = [
    await sessionOf(ADMIN),
    await sessionOf(OPERATOR),
    await sessionOf(OFFICER),
  ];
});

test.beforeEach(async () => {
  const needed_for = ['grant_roles', 'quarantine_release'];
  const set = await callAs(anna, 'POST', '/v1/settings/two-people', { needed_for });
  expect(set.status, JSON.stringify(set.body)).toBe(200);
});

// Other tests are done by one person.
test.afterEach(async () => {
  const asked = await callAs(anna, 'POST', '/v1/settings/two-people', { needed_for: [] });
  if (asked.status === 200) return;
  expect(asked.status, JSON.stringify(asked.body)).toBe(202);
  const { id } = asked.body as { id: string };
  const done = await callAs(sofia, 'POST', `/v1/approvals/${id}/approve`);
  expect(done.status, JSON.stringify(done.body)).toBe(200);
});

async function browserOf(browser: Browser, session: SessionCookie): Promise<Page> {
  const context = await browser.newContext();
  await context.addCookies([session]);
  const page = await context.newPage();
  await fromDist(page);
  await page.goto(`${SITE}/console/approvals`);
  await expect(page.getByText('Live', { exact: true })).toBeVisible();
  return page;
}

const standing = async (device: string) => {
  const answer = await call('GET', `/v1/devices/${device}`);
  return (answer.body as { line: { standing: string } }).line.standing;
};

/** Anna asks on the device's page, and stays there. */
async function asksForRelease(page: Page, device: string) {
  expect((await call('POST', `/v1/devices/${device}/quarantine`)).status).toBeLessThan(300);
  await page.goto(`${SITE}/console/devices/${device}`);
  await page.getByRole('button', { name: 'Release…' }).click();
  const dialog = page.getByRole('dialog');
  await expect(dialog).toContainText('This takes two people');
  await dialog.getByRole('button', { name: 'Release' }).click();
  const told = page.getByRole('dialog', { name: 'Asked: a second person decides' });
  await expect(told).toContainText('Nothing is done yet.');
  await expect(told).toContainText('an operator or an administrator');
  await expect(told.getByRole('link', { name: 'To the approval' })).toBeVisible();
  await told.getByRole('button', { name: 'Close' }).click();
}

test('one asks for a release, another approves it, and both see it as it happens', async ({
  console: page,
  browser,
}) => {
  const other = await browserOf(browser, otto);
  await asksForRelease(page, 'replay-1');
  await expect(page.locator('.head').getByText('quarantined')).toBeVisible();
  expect(await standing('replay-1')).toBe('quarantined');

  const nav = other.getByRole('navigation', { name: 'Pages' });
  await expect(nav.getByRole('link', { name: /Approvals.*1 wait for you/ })).toBeVisible(BY_STREAM);
  const row = other.getByRole('row', { name: /Let replay-1 back from quarantine/ });
  await expect(row).toContainText('anna');
  await expect(row).toContainText('as security officer');
  await row.getByRole('button', { name: 'Approve…' }).click();
  const dialog = other.getByRole('dialog', { name: 'Approve it?' });
  await expect(dialog).toContainText('The gateways let replay-1 back within seconds');
  expect(await standing('replay-1')).toBe('quarantined');
  await dialog.getByRole('button', { name: 'Approve' }).click();
  await expect(dialog).toHaveCount(0);
  expect(await standing('replay-1')).toBe('enrolled');

  await expect(page.locator('.head').getByText('enrolled')).toBeVisible(BY_STREAM);
  await page.getByRole('navigation', { name: 'Pages' }).getByText('Approvals').click();
  const decided = page.getByRole('region', { name: 'Decided' }).getByRole('row', {
    name: /Let replay-1 back from quarantine.*approved.*anna.*otto/,
  });
  await expect(decided.first()).toBeVisible();
  await other.context().close();
});

test('one’s own can be withdrawn, and is not one’s own to approve', async ({
  console: page,
  browser,
}) => {
  const other = await browserOf(browser, otto);
  await asksForRelease(page, 'replay-1');
  await page.getByRole('navigation', { name: 'Pages' }).getByText('Approvals').click();
  const row = page
    .getByRole('region', { name: 'Open' })
    .getByRole('row', { name: /Let replay-1 back from quarantine/ });
  await expect(row).toContainText('You asked for it: somebody else says yes.');
  await expect(row.getByRole('button', { name: 'Approve…' })).toHaveCount(0);
  await expect(other.getByRole('button', { name: 'Approve…' })).toBeVisible(BY_STREAM);

  await row.getByRole('link', { name: 'Let replay-1 back from quarantine' }).click();
  await page.getByRole('button', { name: 'Withdraw…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Withdraw it?' });
  await dialog.getByLabel('Why').fill('its owner is still looking');
  await dialog.getByRole('button', { name: 'Withdraw' }).click();
  const asked = page.getByRole('region', { name: 'Asked for' });
  await expect(asked).toContainText('refused');
  await expect(asked).toContainText('its owner is still looking');

  await expect(other.getByText('Nothing waits for a second person')).toBeVisible(BY_STREAM);
  expect(await standing('replay-1')).toBe('quarantined');
  // Other tests find it as it was.
  const back = await callAs(anna, 'POST', '/v1/devices/replay-1/release');
  const { id } = back.body as { id: string };
  expect((await callAs(otto, 'POST', `/v1/approvals/${id}/approve`)).status).toBe(200);
  await other.context().close();
});

test('to ask for fewer is asked of a security officer, and the setting follows his word', async ({
  console: page,
  browser,
}) => {
  const other = await browserOf(browser, sofia);
  await page.goto(`${SITE}/console/users`);
  const panel = page.getByRole('region', { name: 'Takes two people' });
  await expect(panel).toContainText('Letting a quarantined device back: two people');
  await panel.getByRole('button', { name: 'Change…' }).click();
  const dialog = page.getByRole('dialog', { name: 'What takes two people' });
  await dialog.getByRole('checkbox', { name: /^Letting a quarantined device back/ }).uncheck();
  await dialog.getByRole('button', { name: 'Ask for it' }).click();
  await page
    .getByRole('dialog', { name: 'Asked: a second person decides' })
    .getByRole('button', { name: 'Close' })
    .click();
  await expect(panel).toContainText('Letting a quarantined device back: two people');

  await other.getByRole('button', { name: 'Approve…' }).click();
  const yes = other.getByRole('dialog', { name: 'Approve it?' });
  await expect(yes).toContainText('Two people are asked for this only: letting people do more.');
  await yes.getByRole('button', { name: 'Approve' }).click();
  await expect(panel).toContainText('Letting a quarantined device back: one', BY_STREAM);
  await other.context().close();
});
