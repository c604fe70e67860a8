/** How a hand moves a chart: mouse, pen, fingers, wheel and keys, each as a change of the window. */

import { chosen, following, panned, shifted, spanOf, type Window, zoomed } from './window.ts';

export type Change = (window: Window, now: number) => Window;

const KEYS: Record<string, Change> = {
  ArrowLeft: (window, now) => panned(window, -0.1, now),
  ArrowRight: (window, now) => panned(window, 0.1, now),
  PageUp: (window, now) => panned(window, -0.9, now),
  PageDown: (window, now) => panned(window, 0.9, now),
  '+': (window, now) => zoomed(window, 0.6, 0.5, now),
  '=': (window, now) => zoomed(window, 0.6, 0.5, now),
  '-': (window, now) => zoomed(window, 1 / 0.6, 0.5, now),
  End: (window, now) => following(spanOf(window), now),
};

/** Nearer or farther by this for each notch of a wheel. */
const NOTCH = 1.2;

/** What lies between two fingers, as a share of the width. */
interface Grip {
  middle: number;
  apart: number;
}

export const Hand = {
  key(key: string): Change | undefined {
    return KEYS[key];
  },

  /**
   * Drag moves in time; with Shift, it chooses a stretch. A wheel with Ctrl, as two fingers on a touchpad, zooms where it
   * points; without, the page scrolls. Two fingers on a screen zoom, one moves sideways and leaves up and down to the page.
   */
  on(over: HTMLElement, change: (change: Change) => void): () => void {
    const pointers = new Map<number, number>();
    let grip: Grip | undefined;
    let marked: { from: number; box: HTMLElement } | undefined;
    const share = (x: number) => {
      const box = over.getBoundingClientRect();
      return (x - box.left) / box.width;
    };

    const down = (event: PointerEvent) => {
      if (event.button !== 0) return;
      over.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, share(event.clientX));
      if (event.shiftKey && event.pointerType === 'mouse') {
        const box = document.createElement('div');
        box.className = 'over-choice';
        over.append(box);
        marked = { from: share(event.clientX), box };
      }
      grip = gripOf(pointers);
    };
    const move = (event: PointerEvent) => {
      if (!pointers.has(event.pointerId)) return;
      pointers.set(event.pointerId, share(event.clientX));
      if (marked) {
        const to = share(event.clientX);
        marked.box.style.left = `${100 * Math.min(marked.from, to)}%`;
        marked.box.style.width = `${100 * Math.abs(to - marked.from)}%`;
        return;
      }
      const before = grip;
      const after = gripOf(pointers);
      grip = after;
      if (!before || !after) return;
      if (before.apart > 0 && after.apart > 0) {
        change((window, now) => zoomed(window, before.apart / after.apart, after.middle, now));
      }
      const by = before.middle - after.middle;
      if (by !== 0) change((window, now) => panned(window, by, now));
    };
    const up = (event: PointerEvent) => {
      if (!pointers.delete(event.pointerId)) return;
      if (marked) {
        const { from, box } = marked;
        const to = share(event.clientX);
        box.remove();
        marked = undefined;
        if (event.type === 'pointerup' && Math.abs(to - from) > 0.01) {
          change(window =>
            chosen(window.from + from * spanOf(window), window.from + to * spanOf(window)),
          );
        }
      }
      grip = gripOf(pointers);
    };
    const wheel = (event: WheelEvent) => {
      const isSideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (!event.ctrlKey && !event.metaKey && !isSideways) return;
      event.preventDefault();
      if (isSideways) {
        const by = event.deltaX / over.clientWidth;
        change((window, now) => shifted(window, by * spanOf(window), now));
      } else {
        const factor = NOTCH ** Math.max(-2, Math.min(2, event.deltaY / 50));
        const pivot = share(event.clientX);
        change((window, now) => zoomed(window, factor, pivot, now));
      }
    };
    over.addEventListener('pointerdown', down);
    over.addEventListener('pointermove', move);
    over.addEventListener('pointerup', up);
    over.addEventListener('pointercancel', up);
    over.addEventListener('wheel', wheel, { passive: false });
    return () => {
      over.removeEventListener('pointerdown', down);
      over.removeEventListener('pointermove', move);
      over.removeEventListener('pointerup', up);
      over.removeEventListener('pointercancel', up);
      over.removeEventListener('wheel', wheel);
    };
  },
};

function gripOf(pointers: Map<number, number>): Grip | undefined {
  const at = [...pointers.values()];
  if (at.length === 0) return undefined;
  const [left, right] = [Math.min(...at), Math.max(...at)];
  return { middle: (left + right) / 2, apart: right - left };
}
