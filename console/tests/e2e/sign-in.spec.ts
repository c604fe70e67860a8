import { ADMIN, call, expect, fromDist, SITE, signIn, test, VIEWER } from './site.ts';

test('a wrong password is refused in words, and the right one lets in', async ({ page }) => {
  await fromDist(page);
  await page.goto(SITE);
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await page.getByLabel('User').fill(ADMIN.user);
  await page.getByLabel('Password').fill('not the right password');
  await page.keyboard.press('Enter');
  await expect(
    page.getByText('User and password do not fit, or the user is disabled.'),
  ).toBeVisible();
  await page.getByLabel('Password').fill(ADMIN.password);
  await page.keyboard.press('Enter');
  await expect(page.getByRole('heading', { name: 'Fleet', level: 1 })).toBeVisible();
});

test('the session is a cookie that no script reads, and ends with it', async ({
  page,
  context,
}) => {
  await signIn(page);
  const cookie = (await context.cookies()).find(one => one.name === '__Host-plimsoll');
  expect(cookie).toMatchObject({ httpOnly: true, secure: true, sameSite: 'Strict', path: '/' });
  expect(await page.evaluate(() => document.cookie)).toBe('');
  await page.getByRole('button', { name: `You: ${ADMIN.user}` }).click();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await page.goto(`${SITE}/console/rollouts`);
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
});

test('whoever signs in comes to where the address leads', async ({ page }) => {
  await signIn(page, ADMIN, '/console/devices/host-1');
  await expect(page.getByRole('heading', { name: 'host-1', level: 1 })).toBeVisible();
});

test('a session that is ended by another shows at once', async ({ page }) => {
  await signIn(page, VIEWER);
  await expect(page.getByText('Live', { exact: true })).toBeVisible();
  const ended = await call('POST', `/v1/users/${VIEWER.user}/password`, {
    password: VIEWER.password,
  });
  expect(ended.status).toBeLessThan(300);
  // By the stream's end: the page asks by itself only every 30 s.
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible({ timeout: 15_000 });
});

test('a viewer sees what there is to do, and who may', async ({ page }) => {
  await signIn(page, VIEWER, '/console/devices/host-1');
  const revoke = page.getByRole('button', { name: 'Revoke…' });
  await expect(revoke).toHaveAttribute('aria-disabled', 'true');
  await revoke.focus();
  await expect(
    revoke
      .locator('..')
      .getByText('This takes an operator, a security officer or an administrator.'),
  ).toBeVisible();
  await page.keyboard.press('Enter');
  // By hand too; `force`, since Playwright waits for a button that says that it is disabled.
  await revoke.click({ force: true });
  await expect(page.getByRole('dialog')).toHaveCount(0);
});
