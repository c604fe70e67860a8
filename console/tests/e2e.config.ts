import { defineConfig } from '@playwright/test';

/**
 * The console in a real browser, as control serves it, against the whole product: `plimsoll up` in a directory of its own.
 * PLIMSOLL names the executable, CHROMIUM the browser, PORT_BASE the first port.
 */
export default defineConfig({
  testDir: 'e2e',
  outputDir: '../target/e2e',
  // One site for all, and two processors: one browser at a time.
  workers: 1,
  fullyParallel: false,
  reporter: 'list',
  // A machine that builds beside it is slow; what is late is late, and not wrong.
  timeout: 180_000,
  expect: { timeout: 45_000 },
  globalSetup: './e2e/up.ts',
  use: {
    ignoreHTTPSErrors: true,
    viewport: { width: 1280, height: 800 },
    acceptDownloads: true,
    launchOptions: { executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' },
    screenshot: 'only-on-failure',
  },
});
