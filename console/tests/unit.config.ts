import { defineConfig } from '@playwright/test';

/** What decides, without a browser. */
export default defineConfig({
  testDir: 'unit',
  outputDir: '../target/unit',
  workers: 1,
  reporter: 'list',
});
