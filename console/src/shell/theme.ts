/** Light, dark, or as the machine is set. Kept in this browser. */

import { useSyncExternalStore } from 'react';

export const THEMES = ['auto', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];

const KEPT = 'plimsoll-theme';
const watchers = new Set<() => void>();
let theme: Theme = kept();

function kept(): Theme {
  try {
    const word = localStorage.getItem(KEPT);
    return THEMES.find(one => one === word) ?? 'auto';
  } catch {
    return 'auto';
  }
}

export function setTheme(next: Theme) {
  theme = next;
  try {
    localStorage.setItem(KEPT, next);
  } catch {
    // A browser that keeps nothing has the theme until the page is left.
  }
  showTheme();
  for (const watcher of watchers) watcher();
}

export function showTheme() {
  document.documentElement.dataset.theme = theme;
}

export function useTheme(): Theme {
  return useSyncExternalStore(watchTheme, () => theme);
}

function watchTheme(changed: () => void) {
  watchers.add(changed);
  return () => watchers.delete(changed);
}

/** Calls when colours change, by whichever way: what is drawn on a canvas has to be drawn again. */
export function onColours(changed: () => void): () => void {
  const machine = matchMedia('(prefers-color-scheme: dark)');
  machine.addEventListener('change', changed);
  watchers.add(changed);
  return () => {
    machine.removeEventListener('change', changed);
    watchers.delete(changed);
  };
}
