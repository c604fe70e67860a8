import react from '@vitejs/plugin-react';
import { defineConfig, type Plugin } from 'vite';

/**
 * The theme is chosen by the script, so nothing is painted before it has run: no flash of the other theme, and no
 * inline script, which the content security policy forbids.
 */
const paintAfterTheme: Plugin = {
  name: 'paint-after-theme',
  transformIndexHtml: {
    order: 'post',
    handler: html =>
      html.replace('<script type="module"', '<script type="module" blocking="render"'),
  },
};

export default defineConfig({
  plugins: [react(), paintAfterTheme],
  build: {
    target: 'es2022',
    // Files are named by their content, so that control may call them immutable.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
});
