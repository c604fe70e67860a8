/** The stretch of time that charts show, and how it moves. Pure; times in milliseconds. */

export interface Window {
  from: number;
  to: number;
  /** Its right end is now, and goes with it. */
  follows: boolean;
}

const SECOND = 1_000;
const DAY = 86_400 * SECOND;
/** Below ten seconds there is nothing to see of what is measured once a second; a year is what a store keeps. */
export const SPAN_MS = { min: 10 * SECOND, max: 366 * DAY };

export const SPANS: [ms: number, name: string][] = [
  [60 * SECOND, '1 min'],
  [5 * 60 * SECOND, '5 min'],
  [15 * 60 * SECOND, '15 min'],
  [3_600 * SECOND, '1 h'],
  [6 * 3_600 * SECOND, '6 h'],
  [DAY, '1 d'],
  [7 * DAY, '7 d'],
  [30 * DAY, '30 d'],
];

export function spanOf(window: Window): number {
  return window.to - window.from;
}

export function following(span: number, now: number): Window {
  return { from: now - span, to: now, follows: true };
}

/** Time goes on: a window that follows goes with it, another stays. */
export function at(window: Window, now: number): Window {
  return window.follows ? following(spanOf(window), now) : window;
}

/** By a share of its span, forth or back. Whoever arrives at now follows. */
export function panned(window: Window, share: number, now: number): Window {
  return shifted(window, share * spanOf(window), now);
}

export function shifted(window: Window, by: number, now: number): Window {
  const span = spanOf(window);
  if (by >= 0 && window.to + by >= now) return following(span, now);
  return { from: window.from + by, to: window.to + by, follows: false };
}

/** `factor` below 1: nearer. What stands at `pivot`, a share of the width, stays there; when following, now does. */
export function zoomed(window: Window, factor: number, pivot: number, now: number): Window {
  const before = spanOf(window);
  const span = Math.min(SPAN_MS.max, Math.max(SPAN_MS.min, before * factor));
  if (window.follows) return following(span, now);
  const kept = window.from + pivot * before;
  const to = kept + (1 - pivot) * span;
  return to >= now
    ? { ...following(span, now), follows: false }
    : { from: to - span, to, follows: false };
}

export function chosen(from: number, to: number): Window {
  const span = Math.max(SPAN_MS.min, Math.abs(to - from));
  const start = Math.min(from, to);
  return { from: start, to: start + span, follows: false };
}
