import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
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

const OUT = 'dist/site';

/** Every file once more as Brotli makes it at its best: control sends it as it is, and never compresses. */
const compressed: Plugin = {
  name: 'compressed',
  closeBundle() {
    for (const entry of readdirSync(OUT, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || entry.name.endsWith('.br')) continue;
      const path = join(entry.parentPath, entry.name);
      const bytes = readFileSync(path);
      const params = {
        [constants.BROTLI_PARAM_QUALITY]: 11,
        [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
      };
      writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params }));
    }
  },
};

export default defineConfig({
  plugins: [react(), paintAfterTheme, compressed],
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: 'es2022',
    // The first browsers that know `light-dark()`, so that it is left as it is.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    // Files are named by their content, so that control may call them immutable.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
});
